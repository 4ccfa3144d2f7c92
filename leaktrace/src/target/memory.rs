//! Reading the memory of a process without stopping it.

use std::io::{self, IoSliceMut};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

/// Most bytes read at once.
const MAX_READ: usize = 64 << 20;

/// Copies `length` bytes at `address` of process `pid`: all of them, or an error.
pub fn read_memory(pid: u32, address: u64, length: usize) -> io::Result<Vec<u8>> {
    if length > MAX_READ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = vec![0; length];
    let remote = [RemoteIoVec {
        base: address as usize,
        len: length,
    }];
    let read = process_vm_readv(Pid::from_raw(pid as i32), &mut [IoSliceMut::new(&mut bytes)], &remote)?;
    if read == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_memory_and_refuses_what_is_not_mapped() {
        let text = *b"held";
        let read = read_memory(std::process::id(), text.as_ptr() as u64, text.len());
        assert_eq!(read.expect("its own memory"), text);
        assert!(read_memory(std::process::id(), 8, 8).is_err());
    }
}
