//! Maps: tables that programs and croft share.

use super::{BPF_OBJ_GET_INFO_BY_FD, FdById, InfoByFd, bpf};
use crate::Result;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_F_NO_PREALLOC: u32 = 1;

/// `union bpf_attr` of BPF_MAP_CREATE.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// `union bpf_attr` of the calls on elements.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// A hash map with keys of `K` bytes and values of `V`.
#[derive(Debug)]
pub struct HashMap<const K: usize, const V: usize>(OwnedFd);

impl<const K: usize, const V: usize> AsFd for HashMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<const K: usize, const V: usize> HashMap<K, V> {
    /// Makes a map of at most `most` elements, as bpftool(8) will show it under `name` (its first 15 bytes). An element takes
    /// memory only once it is there.
    pub fn new(name: &str, most: u32) -> Result<Self> {
        let mut attr = Create {
            map_type: BPF_MAP_TYPE_HASH,
            key_size: K as u32,
            value_size: V as u32,
            max_entries: most,
            flags: BPF_F_NO_PREALLOC,
            inner_map: 0,
            numa_node: 0,
            name: [0; 16],
        };
        for (place, byte) in attr.name[..15].iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        let number = bpf("bpf MAP_CREATE", BPF_MAP_CREATE, &mut attr)?;
        // SAFETY: the kernel has just made this fd (close-on-exec) for us alone; fds fit an i32.
        Ok(HashMap(unsafe { OwnedFd::from_raw_fd(number as i32) }))
    }

    /// The map with this id; `None` if it is of another kind, or its keys and values are of other sizes. ENOENT if it is gone.
    pub fn open(id: u32) -> Result<Option<Self>> {
        let mut attr = FdById { id, next_id: 0, open_flags: 0 };
        let number = bpf("bpf MAP_GET_FD_BY_ID", BPF_MAP_GET_FD_BY_ID, &mut attr)?;
        // SAFETY: the kernel has just made this fd (close-on-exec) for us alone; fds fit an i32.
        let map = unsafe { OwnedFd::from_raw_fd(number as i32) };
        let mut info = MapInfo::default();
        let size = size_of::<MapInfo>() as u32;
        let mut attr = InfoByFd { fd: map.as_raw_fd() as u32, size, info: &raw mut info as u64 };
        bpf("bpf OBJ_GET_INFO_BY_FD", BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
        let shape = (info.map_type, info.key_size as usize, info.value_size as usize);
        // Everything that follows relies on these sizes: the kernel reads and writes as many bytes as the map has.
        Ok((shape == (BPF_MAP_TYPE_HASH, K, V)).then_some(HashMap(map)))
    }

    fn element(&self, key: u64, value: u64) -> Element {
        Element { map: self.0.as_raw_fd() as u32, padding: 0, key, value, flags: 0 }
    }

    /// The value of `key`, if it has one.
    pub fn get(&self, key: &[u8; K]) -> Result<Option<[u8; V]>> {
        let mut value = [0; V];
        let mut attr = self.element(key.as_ptr() as u64, value.as_mut_ptr() as u64);
        match bpf("bpf MAP_LOOKUP_ELEM", BPF_MAP_LOOKUP_ELEM, &mut attr) {
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            found => found.map(|_| Some(value)),
        }
    }

    /// Gives `key` a value, whatever it had. E2BIG: the map is full.
    pub fn insert(&self, key: &[u8; K], value: &[u8; V]) -> Result<()> {
        let mut attr = self.element(key.as_ptr() as u64, value.as_ptr() as u64);
        bpf("bpf MAP_UPDATE_ELEM", BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
    }

    /// Takes `key` away; one that is not there is fine.
    pub fn remove(&self, key: &[u8; K]) -> Result<()> {
        let mut attr = self.element(key.as_ptr() as u64, 0);
        match bpf("bpf MAP_DELETE_ELEM", BPF_MAP_DELETE_ELEM, &mut attr) {
            Err(error) if error.errno() == Errno::NOENT => Ok(()),
            removed => removed.map(drop),
        }
    }

    /// All keys. While others change the map, those that come and go meanwhile may or may not be among them.
    pub fn keys(&self) -> Result<BTreeSet<[u8; K]>> {
        let mut keys = BTreeSet::new();
        let mut last: Option<[u8; K]> = None;
        loop {
            let mut next = [0; K];
            let mut attr =
                self.element(last.as_ref().map_or(0, |key| key.as_ptr() as u64), next.as_mut_ptr() as u64);
            match bpf("bpf MAP_GET_NEXT_KEY", BPF_MAP_GET_NEXT_KEY, &mut attr) {
                Err(error) if error.errno() == Errno::NOENT => return Ok(keys),
                done => done?,
            };
            // Where the last one has gone meanwhile, the kernel begins again with the first.
            keys.insert(next);
            last = Some(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_and_go() {
        let map = HashMap::<4, 8>::new("croft_test", 3).unwrap();
        assert_eq!((map.get(b"none").unwrap(), map.keys().unwrap().len()), (None, 0));
        map.insert(b"one.", b"first...").unwrap();
        map.insert(b"two.", b"second..").unwrap();
        map.insert(b"one.", b"instead.").unwrap();
        assert_eq!(map.get(b"one.").unwrap(), Some(*b"instead."));
        assert_eq!(map.keys().unwrap(), BTreeSet::from([*b"one.", *b"two."]));
        map.insert(b"last", b"........").unwrap();
        assert_eq!(map.insert(b"over", b"........").unwrap_err().errno(), Errno::TOOBIG);
        map.remove(b"one.").unwrap();
        map.remove(b"one.").unwrap();
        assert_eq!(map.keys().unwrap(), BTreeSet::from([*b"last", *b"two."]));
    }

    #[test]
    fn a_map_of_another_shape_is_not_opened() {
        let map = HashMap::<4, 8>::new("croft_test", 3).unwrap();
        let mut info = MapInfo::default();
        let size = size_of::<MapInfo>() as u32;
        let mut attr = InfoByFd { fd: map.0.as_raw_fd() as u32, size, info: &raw mut info as u64 };
        bpf("bpf OBJ_GET_INFO_BY_FD", BPF_OBJ_GET_INFO_BY_FD, &mut attr).unwrap();
        assert!(HashMap::<4, 8>::open(info.id).unwrap().is_some());
        assert!(HashMap::<4, 4>::open(info.id).unwrap().is_none());
        assert!(HashMap::<8, 8>::open(info.id).unwrap().is_none());
        drop(map);
    }
}
