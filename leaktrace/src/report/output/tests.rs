use std::os::unix::fs::{OpenOptionsExt, symlink};

use super::*;
use crate::profile::{self, fixture};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect()
}

fn write(path: &Path) -> Result<(), String> {
    write_file(&fixture::profile(), path, &View::default()).map_err(|error| {
        let error = format!("{error:#}");
        assert!(!error.contains('\n') && !error.contains("os error"), "{error}");
        error
    })
}

fn read_back(path: &Path) -> Profile {
    profile::read(File::open(path).expect("a file")).expect("a profile")
}

#[test]
fn every_format_is_written_whole_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a.txt", "a.json", "a.folded", "a.svg", "a.pb.gz"] {
        write(&folder.path().join(name)).expect(name);
        assert!(
            fs::metadata(folder.path().join(name)).expect(name).len() > 100,
            "{name}"
        );
    }
    assert_eq!(names(folder.path()).len(), 5);
    assert_eq!(read_back(&folder.path().join("a.json")), fixture::profile());
}

#[test]
fn an_old_file_is_replaced_with_its_mode_kept_and_links_stay_links() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, link) = (folder.path().join("old.json"), folder.path().join("link.json"));
    fs::write(&file, "old").expect("writes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("a mode");
    symlink(&file, &link).expect("a link");
    write(&link).expect("writes");
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640);
    assert_eq!(read_back(&file), fixture::profile());
}

#[test]
fn a_failure_leaves_the_old_file_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("old.svg");
    fs::write(&path, "old").expect("writes");
    let mut profile = fixture::profile();
    profile.sites[0].live_bytes = u64::MAX;
    write_file(&profile, &path, &View::default()).expect_err("too large to draw");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "old");
    assert_eq!(names(folder.path()), ["old.svg"]);
}

#[test]
fn devices_are_written_as_they_are() {
    write(Path::new("/dev/null")).expect("takes everything");
    let error = write(Path::new("/dev/full")).expect_err("takes nothing");
    assert_eq!(
        error,
        "cannot write /dev/full: No space left on device; free some space, or choose another place with --output"
    );
    check_writable(Path::new("/dev/null")).expect("a device");
}

#[test]
fn a_reader_that_goes_away_is_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pipe.json");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .expect("opens");
    let mut profile = fixture::profile();
    profile.target.command = "x".repeat(1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            drop(reader);
        });
        write_file(&profile, &path, &View::default()).expect("a broken pipe is success");
    });
}

#[test]
fn what_cannot_be_written_is_said_early() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |path: &Path| check_writable(path).map_err(|error| error.to_string());
    let missing = folder.path().join("none/a.json");
    assert!(
        check(&missing)
            .expect_err("no folder")
            .ends_with("make the folder first, or choose another place with --output")
    );
    let directory = folder.path().join("d.json");
    fs::create_dir(&directory).expect("a folder");
    assert!(check(&directory).expect_err("a folder").contains("it is a directory"));
    assert!(
        check(Path::new("report.xml"))
            .expect_err("an ending")
            .contains("end it in .txt")
    );
    check(&folder.path().join("a.json")).expect("can be written");
    check(Path::new("-")).expect("standard output");
    assert_eq!(names(folder.path()), ["d.json"], "checking leaves nothing");
}
