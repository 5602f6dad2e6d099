//! Where a program of croft's begins: sealed before the C library has begun.
//!
//! A program that runs containers runs from a read-only mount of its own (CVE-2019-5736, see [`crate::exec::seal`]), for which it has to
//! be executed a second time. Whatever is done before that is done twice, and the C library's start alone takes as long as everything
//! else that croft-oci does before its first clone: on a virtual machine each `cpuid` that it asks is a trap. So the seal is made
//! by the first instructions of the program, which need nothing but system calls.
//!
//! The linker is told to begin here (`-e croft_entry`, in croft-oci's build script). Nothing here fails: what cannot be sealed begins as any program
//! does, and finds out why in the ordinary way.

use core::arch::{asm, naked_asm};

use crate::exec::{CLONING, SEAL};

/// The program's first instruction: seals it, or goes on to the C library's own beginning with all registers as they were.
///
/// The kernel, or a dynamic loader, jumps here with the stack of the System V ABI: at its top the number of arguments, and in
/// `rdx` a function of the loader's that `_start` takes.
///
/// # Safety
/// Only the kernel or the loader may come here.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn croft_entry() {
    naked_asm!(
        "mov rdi, rsp",
        "push rdx",
        "sub rsp, 8",
        "call {begin}",
        "add rsp, 8",
        "pop rdx",
        "jmp _start",
        begin = sym begin,
    )
}

/// Executes the program again from the seal if its arguments ask for that and it is not sealed yet.
///
/// Only loops over bytes and system calls: no function of the C library works yet.
///
/// # Safety
/// `stack` is the stack that the kernel gave the program: the count of the arguments, they, null, the environment, null.
unsafe extern "C" fn begin(stack: *const usize) {
    // SAFETY: the caller's promise, which holds for every read of the stack here; open_tree, mount_setattr and execveat get
    // pointers to what lives until they return.
    unsafe {
        let count = *stack;
        let args = stack.add(1);
        let env = args.add(count + 1);
        let mut clones = false;
        let mut n = 1;
        while n < count {
            let word = *args.add(n) as *const u8;
            clones |= is(word, CLONING[0]) || is(word, CLONING[1]) || is(word, CLONING[2]);
            n += 1;
        }
        if !clones {
            return;
        }
        let own = c"/proc/self/exe".as_ptr() as usize;
        let cwd = libc::AT_FDCWD as usize;
        // In a mount of one file its path is `/`. Whether that mount is ours is looked at when the program has begun.
        let mut link = [0_u8; 2];
        let length = call(libc::SYS_readlinkat, [cwd, own, link.as_mut_ptr() as usize, link.len(), 0]);
        if length <= 0 || (length == 1 && link[0] == b'/') {
            return;
        }
        let flags = libc::OPEN_TREE_CLONE as usize | libc::OPEN_TREE_CLOEXEC as usize;
        let sealed = call(libc::SYS_open_tree, [cwd, own, flags, 0, 0]);
        if sealed < 0 {
            return;
        }
        let attributes =
            libc::mount_attr { attr_set: SEAL, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
        let (sealed, here, empty) = (sealed as usize, c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
        let size = size_of::<libc::mount_attr>();
        let set = [sealed, here, empty, &raw const attributes as usize, size];
        if call(libc::SYS_mount_setattr, set) == 0 {
            call(libc::SYS_execveat, [sealed, here, args as usize, env as usize, empty]);
        }
        call(libc::SYS_close, [sealed, 0, 0, 0, 0]);
    }
}

/// Whether the C string `word` is `wanted`.
///
/// # Safety
/// `word` ends in a NUL.
unsafe fn is(word: *const u8, wanted: &str) -> bool {
    let wanted = wanted.as_bytes();
    let mut n = 0;
    // SAFETY: no byte after the first one that differs from `wanted` is read, and a NUL differs from all of them.
    unsafe {
        while n < wanted.len() && *word.add(n) == wanted[n] {
            n += 1;
        }
        n == wanted.len() && *word.add(n) == 0
    }
}

/// A system call; the negated error number on failure.
///
/// # Safety
/// As the call.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let result;
    // SAFETY: syscall(2) on x86-64: these registers, of which the kernel changes rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_compared_whole() {
        for (word, same) in [(c"run", true), (c"ru", false), (c"runs", false), (c"", false)] {
            // SAFETY: a C string.
            assert_eq!(unsafe { is(word.as_ptr().cast(), "run") }, same, "{word:?}");
        }
    }

    #[test]
    fn a_call_gives_the_kernels_answer() {
        // SAFETY: getpid takes nothing, close a number that no descriptor has.
        let (pid, closed) =
            unsafe { (call(libc::SYS_getpid, [0; 5]), call(libc::SYS_close, [usize::MAX, 0, 0, 0, 0])) };
        assert_eq!(pid as u32, std::process::id());
        assert_eq!(closed as i32, -libc::EBADF);
    }
}
