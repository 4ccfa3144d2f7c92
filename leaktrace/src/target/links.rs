//! What a module asks of the dynamic loader: which libraries a program starts with, and keeps to its end.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use object::ReadCache;

use super::elf::Image;
use super::module::Module;

/// What one module says to the loader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Whether it is a program, and no library.
    pub is_program: bool,
    /// The name by which others ask for it.
    pub name: Option<String>,
    /// The names of what it asks for, its loader included.
    pub needed: Vec<String>,
}

impl Links {
    /// Reads them; a file that does not say asks for nothing.
    pub fn read(file: &File) -> Self {
        let cache = ReadCache::new(file);
        let Ok(image) = Image::parse(&cache) else {
            return Self::default();
        };
        let mut needed = image.needed();
        needed.extend(image.interpreter().as_deref().and_then(file_name));
        Self {
            is_program: image.is_program(),
            name: image.own_name(),
            needed,
        }
    }
}

/// Device and inode of the modules that stay mapped for as long as the program runs: the program itself and all that it
/// asks for, directly or not. What is loaded besides can be unloaded.
pub fn lasting(modules: &[Arc<Module>]) -> HashSet<(u64, u64)> {
    let mut found: Vec<&Arc<Module>> = modules.iter().filter(|module| module.links.is_program).collect();
    let mut lasting: HashSet<_> = found.iter().map(|module| module.identity).collect();
    while let Some(module) = found.pop() {
        for name in &module.links.needed {
            let new = modules.iter().filter(|other| goes_by(other, name));
            let new: Vec<_> = new.filter(|other| lasting.insert(other.identity)).collect();
            found.extend(new);
        }
    }
    lasting
}

fn goes_by(module: &Module, name: &str) -> bool {
    module.links.name.as_deref() == Some(name) || module.path.file_name().is_some_and(|file| file == name)
}

fn file_name(path: &str) -> Option<String> {
    Some(Path::new(path).file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::space::AddressSpace;
    use super::*;

    #[test]
    fn our_program_keeps_its_c_library_and_its_loader() {
        let space = AddressSpace::read(std::process::id()).unwrap();
        let modules = space.executable_modules();
        let lasting = lasting(&modules);
        let kept = |name: &str| {
            let mut named = modules
                .iter()
                .filter(|module| module.path.to_string_lossy().contains(name));
            named.any(|module| lasting.contains(&module.identity))
        };
        assert!(kept("/libc.so") && kept("/ld-linux") && kept(&std::env::current_exe().unwrap().to_string_lossy()));
    }
}
