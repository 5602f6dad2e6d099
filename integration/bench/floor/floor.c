/*
 * floor: the bare system calls that give a container the effects which croft-oci gives it from runc's default
 * configuration, and nothing else: no configuration is read, nothing is recorded, no path is distrusted. How fast a
 * start on this kernel can be at all.
 *
 * floor [-N] [-c] [-f FILTER] [-1 GROUP]... -2 GROUP -r ROOTFS PROGRAM
 *   -N  in the caller's network namespace       -c  with the groups mounted read-only on /sys/fs/cgroup
 *   -f  a file of struct sock_filter to load    -1  a v1 group to make and join    -2  the cgroup2 group to be born in
 * A group is named HIERARCHY:NAME, such as /sys/fs/cgroup/cpu:croft/floor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_GROUPS 16
#define TRY(call) do { if ((long)(call) < 0) fail(#call); } while (0)

struct cgroup {
	char hierarchy[256];
	char dir[512];
	const char *controller;
	int tasks;
};

static struct cgroup groups[MOST_GROUPS];
static int group_count;
static struct cgroup unified;
static const char *rootfs;
static const char *filter_path;
static int keep_network, mount_groups;

static void fail(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static void parse_group(struct cgroup *group, const char *text)
{
	const char *colon = strchr(text, ':');
	if (!colon || strlen(text) >= sizeof group->hierarchy) {
		errno = EINVAL;
		fail(text);
	}
	snprintf(group->hierarchy, sizeof group->hierarchy, "%.*s", (int)(colon - text), text);
	snprintf(group->dir, sizeof group->dir, "%s/%s", group->hierarchy, colon + 1);
	group->controller = strrchr(group->hierarchy, '/') + 1;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	TRY(fd);
	TRY(write(fd, text, strlen(text)));
	close(fd);
}

static void copy_from_parent(const char *dir, const char *file)
{
	char path[768], text[256];
	snprintf(path, sizeof path, "%s/../%s", dir, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	TRY(fd);
	ssize_t n = read(fd, text, sizeof text - 1);
	TRY(n);
	close(fd);
	text[n] = 0;
	snprintf(path, sizeof path, "%s/%s", dir, file);
	write_file(path, text);
}

static void make_group(struct cgroup *group)
{
	char path[768];
	TRY(mkdir(group->dir, 0755));
	if (!strcmp(group->controller, "cpuset")) {
		copy_from_parent(group->dir, "cpuset.cpus");
		copy_from_parent(group->dir, "cpuset.mems");
	}
	snprintf(path, sizeof path, "%s/tasks", group->dir);
	TRY(group->tasks = open(path, O_WRONLY | O_CLOEXEC));
}

/* Everything is denied but making nodes and the devices of every container: what runc's default configuration means. */
static void filter_devices(int group)
{
	enum { ANY = -1 };
	static const struct { int type, major, minor; } allowed[] = {
		{2, 1, 3}, {2, 1, 5}, {2, 1, 7}, {2, 1, 8}, {2, 1, 9}, {2, 5, 0}, {2, 5, 2}, {2, 136, ANY},
	};
	struct bpf_insn code[64], *at = code;
	/* r2: type and access, r4: major, r5: minor */
	*at++ = (struct bpf_insn){.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 1, .off = 0};
	*at++ = (struct bpf_insn){.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 4, .src_reg = 1, .off = 4};
	*at++ = (struct bpf_insn){.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 5, .src_reg = 1, .off = 8};
	*at++ = (struct bpf_insn){.code = BPF_ALU | BPF_MOV | BPF_X, .dst_reg = 3, .src_reg = 2};
	*at++ = (struct bpf_insn){.code = BPF_ALU | BPF_RSH | BPF_K, .dst_reg = 3, .imm = 16};
	*at++ = (struct bpf_insn){.code = BPF_ALU | BPF_AND | BPF_K, .dst_reg = 2, .imm = 0xffff};
	*at++ = (struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1};
	*at++ = (struct bpf_insn){.code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = 3, .off = 1, .imm = 1};
	*at++ = (struct bpf_insn){.code = BPF_JMP | BPF_EXIT};
	for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
		int more = allowed[i].minor == ANY ? 0 : 1;
		*at++ = (struct bpf_insn){.code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = 2, .off = 2 + more, .imm = allowed[i].type};
		*at++ = (struct bpf_insn){.code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = 4, .off = 1 + more, .imm = allowed[i].major};
		if (more)
			*at++ = (struct bpf_insn){.code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = 5, .off = 1, .imm = allowed[i].minor};
		*at++ = (struct bpf_insn){.code = BPF_JMP | BPF_EXIT};
	}
	*at++ = (struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0};
	*at++ = (struct bpf_insn){.code = BPF_JMP | BPF_EXIT};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (uintptr_t)code, .insn_cnt = at - code,
		.license = (uintptr_t)"Apache-2.0",
	};
	int program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
	TRY(program);
	union bpf_attr attach = {
		.target_fd = group, .attach_bpf_fd = program, .attach_type = BPF_CGROUP_DEVICE, .attach_flags = BPF_F_ALLOW_MULTI,
	};
	TRY(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
	close(program);
}

static void bring_loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	TRY(fd);
	TRY(ioctl(fd, SIOCSIFFLAGS, &request));
	close(fd);
}

static void mount_group(const struct cgroup *group)
{
	char target[512];
	snprintf(target, sizeof target, "sys/fs/cgroup/%s", group->controller);
	TRY(mkdir(target, 0755));
	TRY(mount(group->dir, target, NULL, MS_BIND, NULL));
	TRY(mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

static void mount_all(void)
{
	const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	TRY(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
	TRY(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
	TRY(chdir(rootfs));
	TRY(mount("proc", "proc", "proc", 0, NULL));
	TRY(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
	TRY(mkdir("dev/pts", 0755));
	TRY(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
	TRY(mkdir("dev/shm", 0755));
	TRY(mount("shm", "dev/shm", "tmpfs", safe, "mode=1777,size=65536k"));
	TRY(mkdir("dev/mqueue", 0755));
	TRY(mount("mqueue", "dev/mqueue", "mqueue", safe, NULL));
	TRY(mount("sysfs", "sys", "sysfs", safe | MS_RDONLY, NULL));
	if (!mount_groups)
		return;
	if (!group_count) {
		TRY(mount(unified.dir, "sys/fs/cgroup", NULL, MS_BIND, NULL));
		TRY(mount(NULL, "sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | safe, NULL));
		return;
	}
	TRY(mount("tmpfs", "sys/fs/cgroup", "tmpfs", safe, "mode=755"));
	for (int i = 0; i < group_count; i++)
		mount_group(&groups[i]);
	mount_group(&unified);
	TRY(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | safe, NULL));
}

static void fill_dev(void)
{
	static const struct { const char *path; int major, minor; } nodes[] = {
		{"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
	};
	static const char *const links[][2] = {
		{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
		{"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"},
	};
	umask(0);
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
		TRY(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		TRY(symlink(links[i][0], links[i][1]));
	umask(022);
}

static void hide(void)
{
	static const char *const readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
	static const char *const masked[] = {
		"proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats",
		"proc/sched_debug", "sys/firmware", "proc/scsi",
	};
	for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) < 0 && errno == ENOENT)
			continue;
		TRY(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	}
	for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
		if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
			continue;
		TRY(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "size=0,nr_inodes=1"));
	}
}

static void limit(const struct sock_fprog *filter)
{
	const uint64_t keep = 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE | 1 << CAP_AUDIT_WRITE;
	struct rlimit files = {1024, 1024};
	TRY(setrlimit(RLIMIT_NOFILE, &files));
	TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	for (int i = 0; i <= CAP_LAST_CAP; i++)
		if (!(keep >> i & 1))
			TRY(prctl(PR_CAPBSET_DROP, i, 0, 0, 0));
	TRY(setgroups(0, NULL));
	TRY(setresgid(0, 0, 0));
	TRY(setresuid(0, 0, 0));
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[2] = {{keep, keep, 0}, {0, 0, 0}};
	TRY(syscall(SYS_capset, &header, sets));
	if (filter->len)
		TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter));
}

static void become(const char *program, const struct sock_fprog *filter)
{
	setsid();
	for (int i = 0; i < group_count; i++)
		TRY(write(groups[i].tasks, "0", 1));
	if (!keep_network)
		bring_loopback_up();
	TRY(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.floor"));
	mount_all();
	fill_dev();
	hide();
	TRY(syscall(SYS_pivot_root, ".", "."));
	TRY(umount2(".", MNT_DETACH));
	TRY(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	TRY(sethostname("runc", 4));
	limit(filter);
	char *argv[] = {(char *)program, NULL};
	char *envp[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root", NULL};
	execve(program, argv, envp);
	fail(program);
}

static struct sock_fprog read_filter(void)
{
	struct stat stat;
	int fd = open(filter_path, O_RDONLY | O_CLOEXEC);
	TRY(fd);
	TRY(fstat(fd, &stat));
	void *code = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (code == MAP_FAILED)
		fail(filter_path);
	close(fd);
	return (struct sock_fprog){.len = stat.st_size / sizeof(struct sock_filter), .filter = code};
}

static void parse(int argc, char **argv)
{
	for (int option; (option = getopt(argc, argv, "+Ncf:1:2:r:")) > 0;) {
		switch (option) {
		case 'N': keep_network = 1; break;
		case 'c': mount_groups = 1; break;
		case 'f': filter_path = optarg; break;
		case '1':
			if (group_count == MOST_GROUPS)
				exit(2);
			parse_group(&groups[group_count++], optarg);
			break;
		case '2': parse_group(&unified, optarg); break;
		case 'r': rootfs = optarg; break;
		default: exit(2);
		}
	}
	if (!rootfs || !unified.controller || !argv[optind])
		exit(2);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	struct sock_fprog filter = {0};
	if (filter_path)
		filter = read_filter();
	TRY(mkdir(unified.dir, 0755));
	for (int i = 0; i < group_count; i++)
		make_group(&groups[i]);
	int group = open(unified.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	TRY(group);
	filter_devices(group);
	int pidfd = -1;
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD | CLONE_INTO_CGROUP
			| (keep_network ? 0 : CLONE_NEWNET),
		.pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD, .cgroup = group,
	};
	long child = syscall(SYS_clone3, &args, sizeof args);
	TRY(child);
	if (child == 0)
		become(argv[optind], &filter);
	siginfo_t end = {0};
	TRY(waitid(P_PIDFD, pidfd, &end, WEXITED));
	for (int i = 0; i < group_count; i++)
		TRY(rmdir(groups[i].dir));
	TRY(rmdir(unified.dir));
	return end.si_code == CLD_EXITED ? end.si_status : 128 + end.si_status;
}
