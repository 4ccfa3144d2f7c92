//! Tables that the kernel side and userspace both have in memory.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

use super::KernelError;

/// An array table mapped into this process. Elements are read and written one field at a time, atomically.
pub struct Shared<T> {
    start: NonNull<T>,
    stride: usize,
    len: usize,
    bytes: usize,
}

// SAFETY: the memory is shared with the kernel side anyway; access is by atomic operations only.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// Maps table `name` of `len` elements.
    pub fn open(ebpf: &Ebpf, name: &str, len: u32) -> Result<Self, KernelError> {
        match ebpf.map(name) {
            Some(Map::Array(data)) => Self::map(data, len).map_err(|e| KernelError::Table(format!("{name}: {e}"))),
            _ => Err(KernelError::Table(format!("{name} is missing"))),
        }
    }

    /// Maps a table made with `BPF_F_MMAPABLE`.
    fn map(table: &MapData, len: u32) -> io::Result<Self> {
        let stride = size_of::<T>().next_multiple_of(8);
        let bytes = (stride * len as usize).next_multiple_of(4096);
        // SAFETY: a new mapping of a descriptor that we own; the kernel checks its size.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                table.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self {
            start,
            stride,
            len: len as usize,
            bytes,
        })
    }

    /// Pointer to element `index`, if there is one. Valid as long as `self`.
    pub fn get(&self, index: u32) -> Option<*mut T> {
        // SAFETY: within the mapping, as checked.
        (index as usize)
            .lt(&self.len)
            .then(|| unsafe { self.start.as_ptr().byte_add(self.stride * index as usize) })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: our mapping, and no pointer into it outlives us.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
