//! Where fields lie in the running kernel's own structures, by its type information (BTF, `/sys/kernel/btf/vmlinux`).
//!
//! Reads just enough of the format (Documentation/bpf/btf.rst of Linux) to find a member of a structure by name. aya
//! reads it too, and keeps members to itself.

use std::{collections::HashMap, fs};

use leaktrace_common::sites::KernelLayout;

const PATH: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Deepest nesting of unnamed structures that is searched.
const MAX_DEPTH: usize = 8;

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Where return addresses are that probes have replaced. Unknown where the kernel does not say.
pub fn kernel_layout() -> KernelLayout {
    fs::read(PATH)
        .ok()
        .and_then(|bytes| layout(&Btf::parse(&bytes)?))
        .unwrap_or_default()
}

fn layout(btf: &Btf<'_>) -> Option<KernelLayout> {
    Some(KernelLayout {
        known: 1,
        task_uprobes: btf.offset("task_struct", "utask")?,
        first_return: btf.offset("uprobe_task", "return_instances")?,
        next_return: btf.offset("return_instance", "next")?,
        return_stack: btf.offset("return_instance", "stack")?,
        return_address: btf.offset("return_instance", "orig_ret_vaddr")?,
        task_memory: btf.offset("task_struct", "mm")?,
        memory_area: btf.offset("mm_struct", "uprobes_state")? + btf.offset("uprobes_state", "xol_area")?,
        area_address: btf.offset("xol_area", "vaddr")?,
        zero: 0,
    })
}

/// Type information, with the structures found by name.
struct Btf<'a> {
    strings: &'a [u8],
    types: Vec<Type<'a>>,
    structs: HashMap<&'a [u8], usize>,
}

/// A type: what of it is needed.
struct Type<'a> {
    kind: u32,
    /// Whether member offsets carry the size of a bit field besides.
    has_bit_fields: bool,
    /// What follows it: of structures and unions, twelve bytes for each member.
    rest: &'a [u8],
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_le_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let header = |at| word(bytes, at).map(|value| value as usize);
        let body = bytes.get(header(4)?..)?;
        let part = |offset, length| body.get(header(offset)?..)?.get(..header(length)?);
        let mut btf = Self {
            strings: part(16, 20)?,
            types: Vec::new(),
            structs: HashMap::new(),
        };
        btf.read_types(part(8, 12)?)?;
        Some(btf)
    }

    /// Types follow each other, each as long as its kind says. They are numbered from 1.
    fn read_types(&mut self, mut bytes: &'a [u8]) -> Option<()> {
        while !bytes.is_empty() {
            let (name, info) = (word(bytes, 0)?, word(bytes, 4)?);
            let kind = info >> 24 & 0x1f;
            let (rest, next) = bytes
                .get(12..)?
                .split_at_checked(extra(kind, (info & 0xffff) as usize)?)?;
            if kind == KIND_STRUCT {
                let name = string(self.strings, name)?;
                self.structs.entry(name).or_insert(self.types.len());
            }
            self.types.push(Type {
                kind,
                has_bit_fields: info >> 31 == 1,
                rest,
            });
            bytes = next;
        }
        Some(())
    }

    /// Offset in bytes of a member, which may be that of an unnamed structure within.
    fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.member(*self.structs.get(structure.as_bytes())?, member.as_bytes(), MAX_DEPTH)
    }

    fn member(&self, index: usize, wanted: &[u8], depth: usize) -> Option<u32> {
        let found = self.types.get(index)?;
        if depth == 0 || !matches!(found.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        found.rest.chunks_exact(12).find_map(|member| {
            let (name, of_type, bits) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let bits = if found.has_bit_fields { bits & 0xff_ffff } else { bits };
            match string(self.strings, name)? {
                [] => Some(bits / 8 + self.member((of_type as usize).checked_sub(1)?, wanted, depth - 1)?),
                name => (name == wanted).then_some(bits / 8),
            }
        })
    }
}

/// Bytes that follow a type of this kind with this many parts; nothing for a kind that is not known.
fn extra(kind: u32, parts: usize) -> Option<usize> {
    Some(match kind {
        1 | 14 | 17 => 4,
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * parts,
        6 | 13 => 8 * parts,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn string(strings: &[u8], at: u32) -> Option<&[u8]> {
    strings.get(at as usize..)?.split(|&byte| byte == 0).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_s_layout_is_found() {
        let Ok(bytes) = fs::read(PATH) else {
            eprintln!("skipped: this kernel has no type information");
            return;
        };
        let btf = Btf::parse(&bytes).expect("a well-formed file");
        let layout = layout(&btf).expect("all that is needed");
        assert_eq!(layout.known, 1);
        // The two lie side by side in every version so far.
        assert_eq!(layout.return_address, layout.return_stack + 8);
        assert!(btf.offset("task_struct", "no_such_member").is_none() && btf.offset("no_such", "x").is_none());
    }

    #[test]
    fn damaged_information_is_refused() {
        let bytes = fs::read(PATH).unwrap_or_default();
        for length in [0, 1, 4, 23, 24, 25, 100, 10_000, bytes.len() / 2] {
            let cut = bytes.get(..length).unwrap_or_default();
            assert!(Btf::parse(cut).is_none(), "{length}");
        }
        assert!(Btf::parse(&[0; 64]).is_none());
    }
}
