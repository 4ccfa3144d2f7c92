//! Loading and linking programs with the uprobe multi and session attach types, which aya 0.14 cannot.
//!
//! aya creates the tables; a second parse of the object is relocated against them and loaded here by bpf(2). One link
//! then carries all probes of a file: attaching and detaching take milliseconds where perf events take seconds. To be
//! dropped when aya can do it.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{
    Function, Object,
    btf::BtfFeatures,
    generated::{bpf_attr, bpf_cmd, bpf_prog_info, bpf_prog_type},
};

use super::{
    KernelError,
    object::{OBJECT, one_line},
};

/// The attach types of the kernel's `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    /// `BPF_TRACE_UPROBE_MULTI`, Linux 6.6.
    Multi = 48,
    /// `BPF_TRACE_UPROBE_SESSION`, Linux 6.13.
    Session = 57,
}

/// Flag of a multi link: the probes are on returns.
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;

/// Descriptors of all tables, by name. Valid as long as the tables are.
pub struct TableFds(HashMap<String, RawFd>);

impl TableFds {
    /// Takes them from `ebpf`, which must still own all of them.
    pub fn of(ebpf: &Ebpf) -> Self {
        Self(
            ebpf.maps()
                .filter_map(|(name, map)| Some((name.to_owned(), data(map)?.fd().as_fd().as_raw_fd())))
                .collect(),
        )
    }
}

/// The object's programs, relocated against the tables of an [`Ebpf`], ready to be loaded.
pub struct Programs {
    object: Object,
    btf: Option<OwnedFd>,
}

/// Probes of one file for one program.
pub struct Points<'a> {
    /// Path by which the kernel finds the file.
    pub path: &'a Path,
    /// Offsets in the file.
    pub offsets: &'a [u64],
    /// Cookie of each.
    pub cookies: &'a [u64],
}

impl Programs {
    /// Parses the object again and points it at the tables that aya created.
    pub fn prepare(tables: &TableFds) -> Result<Self, KernelError> {
        let unsupported = |e: &dyn std::error::Error| KernelError::Unsupported(one_line(e));
        let mut object = Object::parse(OBJECT).map_err(|e| unsupported(&e))?;
        let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
        let btf = object
            .fixup_and_sanitize_btf(&features)
            .map_err(|e| unsupported(&e))?
            .map(aya_obj::btf::Btf::to_bytes);
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let parsed = object.maps.clone();
        let of_object = parsed
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), *tables.0.get(name)?, map)));
        object.relocate_maps(of_object, &text).map_err(|e| unsupported(&e))?;
        object.relocate_calls(&text).map_err(|e| unsupported(&e))?;
        let btf = btf.map(|bytes| load_btf(&bytes)).transpose().map_err(|e| refused(&e))?;
        Ok(Self { object, btf })
    }

    /// Loads program `name` for links of type `attach_type`.
    pub fn load(&self, name: &str, attach_type: AttachType) -> io::Result<OwnedFd> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no program {name} in the object"));
        let program = self.object.programs.get(name).ok_or_else(missing)?;
        let function = self.object.functions.get(&program.function_key()).ok_or_else(missing)?;
        load_program(function, &program.license, self.btf.as_ref(), attach_type)
    }
}

/// Links a program to all points of one file in process `pid`.
pub fn link(
    program: &OwnedFd,
    attach_type: AttachType,
    returns: bool,
    points: &Points,
    pid: u32,
) -> io::Result<OwnedFd> {
    let path = CString::new(points.path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid value of this union of plain data.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the fields set are those that the kernel reads for this command; what they point to outlives the call.
    unsafe {
        let create = &mut attr.link_create;
        create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
        create.attach_type = attach_type as u32;
        let multi = &mut create.__bindgen_anon_3.uprobe_multi;
        multi.path = path.as_ptr() as u64;
        multi.offsets = points.offsets.as_ptr() as u64;
        multi.cookies = points.cookies.as_ptr() as u64;
        multi.cnt = points.offsets.len() as u32;
        multi.flags = if returns { BPF_F_UPROBE_MULTI_RETURN } else { 0 };
        multi.pid = pid;
    }
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

fn load_program(
    function: &Function,
    license: &std::ffi::CStr,
    btf: Option<&OwnedFd>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    let info = function.func_info.func_info_bytes();
    let mut log = vec![0_u8; 1 << 20];
    // SAFETY: all-zero is a valid value of this union of plain data.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the fields set are those that the kernel reads for this command; what they point to outlives the call.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
    load.expected_attach_type = attach_type as u32;
    load.insns = function.instructions.as_ptr() as u64;
    load.insn_cnt = function.instructions.len() as u32;
    load.license = license.as_ptr() as u64;
    if let Some(btf) = btf {
        load.prog_btf_fd = btf.as_raw_fd() as u32;
        load.func_info = info.as_ptr() as u64;
        load.func_info_cnt = function.func_info.len() as u32;
        load.func_info_rec_size = function.func_info_rec_size as u32;
    }
    let first = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    if !matches!(&first, Err(e) if e.raw_os_error() == Some(libc::EACCES)) {
        return first;
    }
    // Rejected by the verifier: once more, for its last words.
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.log_level = 1;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len() as u32;
    bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).map_err(|e| io::Error::new(e.kind(), format!("{e}: {}", last_words(&log))))
}

fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.trim_end_matches('\0').lines().collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid value of this union of plain data.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the fields set are those that the kernel reads for this command; what they point to outlives the call.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = bytes.len() as u32;
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr)
}

/// Instructions that the verifier looked at before it took a program, where this kernel says (Linux 5.16).
pub fn verified_instructions(program: &OwnedFd) -> Option<u32> {
    // SAFETY: all-zero is a valid value of these unions and structures of plain data.
    let (mut attr, mut info): (bpf_attr, bpf_prog_info) = unsafe { std::mem::zeroed() };
    // SAFETY: the fields set are those that the kernel reads for this command; what they point to outlives the call.
    let query = unsafe { &mut attr.info };
    query.bpf_fd = program.as_raw_fd() as u32;
    query.info_len = size_of::<bpf_prog_info>() as u32;
    query.info = (&raw mut info) as u64;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).ok()?;
    Some(info.verified_insns).filter(|count| *count != 0)
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the commands used with this return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a whole `bpf_attr`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(d) | Map::HashMap(d) | Map::PerCpuArray(d) | Map::RingBuf(d) | Map::StackTraceMap(d) => Some(d),
        _ => None,
    }
}

fn refused(error: &io::Error) -> KernelError {
    match error.raw_os_error() {
        Some(libc::EPERM) => KernelError::NotPermitted,
        _ => KernelError::Unsupported(error.to_string()),
    }
}
