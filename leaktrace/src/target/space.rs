//! The address space of a process: which module an address belongs to, now or when a stack was taken.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Root, fd_path};
use super::links::lasting;
use super::mappings::{Mapping, read_mappings_at};
use super::module::Module;
use super::printable::printable;

/// Most code ranges remembered; beyond it those that are no longer mapped are forgotten.
const MAX_CODE: usize = 1 << 18;
/// Most code ranges remembered that other code has taken the place of.
const MAX_COVERED: usize = 1 << 16;

/// When an address was seen, counted in times that code of files was found unmapped: what was there all through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Era {
    /// The first.
    pub from: u32,
    /// The last.
    pub to: u32,
}

/// What an address belongs to.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file; none for `[vdso]`, anonymous code and files that could not be opened.
    pub module: Option<Arc<Module>>,
    /// With a module, the virtual address as its file counts them; else the distance from the start of the mapping.
    pub offset: u64,
    /// Path as the process sees it, or a name in brackets.
    pub name: Arc<str>,
}

/// The mappings of a process and the files behind its code.
#[derive(Debug)]
pub struct AddressSpace {
    /// Process id.
    pub pid: u32,
    /// Its directory under `/proc`, held open: it never leads to a later process with the same id.
    directory: OwnedFd,
    /// What the process sees as `/`; none if it may not be looked into.
    root: Option<Root>,
    mappings: Vec<Mapping>,
    /// `None` for a file that could not be opened or is not ELF.
    modules: HashMap<Key, Option<Arc<Module>>>,
    /// Code by its first address: all that is executable now, and what was and has not been covered since.
    code: BTreeMap<u64, Code>,
    /// What was covered, oldest first.
    covered: VecDeque<(u64, Code)>,
    /// How many times code of files was found unmapped, or said to be.
    era: u32,
    /// The modules that cannot be unmapped, by device and inode.
    lasting: HashSet<(u64, u64)>,
}

/// Device, inode and path: in an overlay two files can have the same device and inode here.
type Key = ((u32, u32), u64, PathBuf);

#[derive(Clone, Debug)]
struct Code {
    /// The era in which it was found.
    born: u32,
    /// The era in which it was found to be gone.
    died: Option<u32>,
    /// May be smaller than its mapping, where a newer one covers a part.
    end: u64,
    mapping: Arc<Mapping>,
    module: Option<Arc<Module>>,
    name: Arc<str>,
}

impl AddressSpace {
    /// Reads the address space of a process and opens the files behind its code.
    ///
    /// # Errors
    /// The process is gone, or may not be looked into.
    pub fn read(pid: u32) -> io::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let directory = std::fs::File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(&path)?
            .into();
        let root = Root::open(&path.join("root")).ok();
        let (mappings, modules, code) = (Vec::new(), HashMap::new(), BTreeMap::new());
        let (covered, era) = (VecDeque::new(), 0);
        let mut space = Self {
            pid,
            directory,
            root,
            mappings,
            modules,
            code,
            covered,
            era,
            lasting: HashSet::new(),
        };
        space.refresh()?;
        Ok(space)
    }

    /// Reads the mappings anew, and says whether code was mapped or unmapped. Modules stay open, and code that is
    /// no longer mapped is still found, until other code takes its place. After an `exec` this is the space of two
    /// programs: read a new one for the new program.
    ///
    /// # Errors
    /// The process is gone; what was known stays known.
    pub fn refresh(&mut self) -> io::Result<bool> {
        let directory = self.directory();
        let mappings = read_mappings_at(&directory)?;
        let code = |mappings: &[Mapping]| {
            mappings
                .iter()
                .filter(|mapping| mapping.executable)
                .cloned()
                .collect::<Vec<_>>()
        };
        let (before, now) = (code(&self.mappings), code(&mappings));
        self.mappings = mappings;
        if before == now {
            return Ok(false);
        }
        if self.code.len() + now.len() > MAX_CODE {
            self.code.clear();
        }
        // Code without a file has no names to lose, and a JIT compiler makes much of it.
        self.code.retain(|_, code| code.module.is_some());
        // An open file keeps its inode; what could not be opened may by now be another file.
        self.modules.retain(|_, module| module.is_some());
        self.note_gone(&before, &now);
        for mapping in now {
            self.add_code(&directory, mapping);
        }
        self.lasting.extend(lasting(&self.executable_modules()));
        Ok(true)
    }

    /// Begins an era because code is known to have been unmapped, whatever the next reading shows: other code, or the
    /// same again, may be in its place by then.
    pub fn begin_era(&mut self) {
        self.era += 1;
    }

    /// Begins an era where code of files is gone.
    fn note_gone(&mut self, before: &[Mapping], now: &[Mapping]) {
        let now: HashSet<&Mapping> = now.iter().collect();
        let gone: HashSet<&Mapping> = before.iter().filter(|mapping| !now.contains(mapping)).collect();
        if !gone.iter().any(|mapping| mapping.is_file()) {
            return;
        }
        self.era += 1;
        for code in self.code.values_mut().filter(|code| gone.contains(&*code.mapping)) {
            code.died.get_or_insert(self.era);
        }
    }

    /// The number of times that code of files was found unmapped.
    pub fn era(&self) -> u32 {
        self.era
    }

    /// Whether `address` lies in code that cannot be unmapped.
    pub fn is_lasting(&self, address: u64) -> bool {
        let found = self.code.range(..=address).next_back();
        let module = found
            .filter(|(_, code)| address < code.end)
            .and_then(|(_, code)| code.module.as_ref());
        module.is_some_and(|module| self.lasting.contains(&module.identity))
    }

    /// What `address` belonged to all through `era`.
    pub fn locate_in(&self, address: u64, era: Era) -> Option<Place> {
        let found = self.code.range(..=address).next_back().map(|(_, code)| code);
        if let Some(code) = found.filter(|code| address < code.end && self.lasted(code, era)) {
            return Some(code.place(address));
        }
        let holds = |start: u64, code: &Code| (start..code.end).contains(&address) && self.lasted(code, era);
        let covered = self.covered.iter().rev().find(|(start, code)| holds(*start, code));
        covered
            .map(|(_, code)| code.place(address))
            .or_else(|| self.locate_data(address))
    }

    /// What `address` belongs to; code that was unmapped is found if nothing executable has taken its place.
    pub fn locate(&self, address: u64) -> Option<Place> {
        if let Some((_, code)) = self.code.range(..=address).next_back()
            && address < code.end
        {
            return Some(code.place(address));
        }
        self.locate_data(address)
    }

    /// Whether code was there all through `era`. Of an era that spans a removal, that is known only of what cannot be
    /// removed; of code without a file nothing is known but that there is some.
    fn lasted(&self, code: &Code, era: Era) -> bool {
        let Some(module) = &code.module else { return true };
        if self.lasting.contains(&module.identity) {
            return code.born <= era.to;
        }
        era.from == era.to && code.born <= era.from && code.died.is_none_or(|died| died > era.to)
    }

    /// What an address belongs to that is no code: the frame of a damaged stack.
    fn locate_data(&self, address: u64) -> Option<Place> {
        let index = self.mappings.partition_point(|mapping| mapping.end <= address);
        let mapping = self
            .mappings
            .get(index)
            .filter(|mapping| mapping.contains(address) && !(mapping.executable && mapping.is_file()))?;
        let module = self.module_of(mapping);
        let name = module
            .as_ref()
            .map_or_else(|| name_of(mapping), |module| module.name.as_str().into());
        Some(
            Code {
                born: self.era,
                died: None,
                end: mapping.end,
                mapping: Arc::new(mapping.clone()),
                module,
                name,
            }
            .place(address),
        )
    }

    /// The files whose code is mapped now, in the order of their first mapping.
    pub fn executable_modules(&self) -> Vec<Arc<Module>> {
        let mut seen = HashSet::new();
        self.executable_mappings()
            .filter_map(|(_, module)| module)
            .filter(|module| seen.insert(module.identity))
            .collect()
    }

    /// The executable mappings, by address, each with its file.
    pub fn executable_mappings(&self) -> impl Iterator<Item = (&Mapping, Option<Arc<Module>>)> {
        self.mappings
            .iter()
            .filter(|mapping| mapping.executable)
            .map(|mapping| (mapping, self.module_of(mapping)))
    }

    /// All mappings as last read, by address.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// What the process sees as `/`, if it may be looked into. Stays open when the process ends.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// Puts `mappings` in the place of those that were read; code is then found by them alone.
    #[cfg(test)]
    pub(crate) fn set_mappings_for_tests(&mut self, mappings: Vec<Mapping>) {
        self.code.clear();
        self.mappings = mappings;
    }

    /// The process's directory under `/proc`; it leads nowhere once the process has ended.
    pub(super) fn directory(&self) -> PathBuf {
        fd_path(self.directory.as_raw_fd())
    }

    fn module_of(&self, mapping: &Mapping) -> Option<Arc<Module>> {
        self.modules.get(&key_of(mapping))?.clone()
    }

    fn add_code(&mut self, directory: &Path, mapping: Mapping) {
        let known = self.code.get(&mapping.start);
        if known.is_some_and(|code| code.died.is_none() && code.end == mapping.end && *code.mapping == mapping) {
            return;
        }
        let root = self.root.as_ref();
        let module = mapping.is_file().then(|| {
            let key = key_of(&mapping);
            self.modules
                .entry(key)
                .or_insert_with(|| Module::open(directory, root, &mapping).ok().map(Arc::new))
                .clone()
        });
        let module = module.flatten();
        let name = module
            .as_ref()
            .map_or_else(|| name_of(&mapping), |module| module.name.as_str().into());
        let (start, end) = (mapping.start, mapping.end);
        let covered = cut(&mut self.code, start, end);
        self.covered
            .extend(covered.into_iter().filter(|(_, code)| code.module.is_some()));
        let excess = self.covered.len().saturating_sub(MAX_COVERED);
        self.covered.drain(..excess);
        self.code.insert(
            start,
            Code {
                born: self.era,
                died: None,
                end,
                mapping: Arc::new(mapping),
                module,
                name,
            },
        );
    }
}

impl Code {
    fn place(&self, address: u64) -> Place {
        let in_file = self
            .module
            .as_ref()
            .and_then(|module| module.virtual_address(&self.mapping, address));
        Place {
            // Without a virtual address the file says nothing about the place.
            module: in_file.and_then(|_| self.module.clone()),
            offset: in_file.unwrap_or(address - self.mapping.start),
            name: Arc::clone(&self.name),
        }
    }
}

/// Takes `start..end` out of the ranges: what lies within goes, what overlaps is cut. Answers what was taken out.
fn cut(code: &mut BTreeMap<u64, Code>, start: u64, end: u64) -> Vec<(u64, Code)> {
    let before = code.range(..start).next_back().filter(|(_, code)| code.end > start);
    let first = before.map_or(start, |(&at, _)| at);
    let overlapping: Vec<u64> = code.range(first..end).map(|(&at, _)| at).collect();
    let mut taken = Vec::new();
    for at in overlapping {
        let Some(old) = code.remove(&at) else { continue };
        let part = |end| Code { end, ..old.clone() };
        if at < start {
            code.insert(at, part(start));
        }
        if old.end > end {
            code.insert(end, part(old.end));
        }
        taken.push((at.max(start), part(old.end.min(end))));
    }
    taken
}

fn key_of(mapping: &Mapping) -> Key {
    (mapping.device, mapping.inode, mapping.path.clone())
}

fn name_of(mapping: &Mapping) -> Arc<str> {
    if mapping.path.as_os_str().is_empty() {
        return "[anon]".into();
    }
    printable(mapping.path.as_os_str().as_encoded_bytes()).into()
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
