//! What a power failure leaves, and what it does not.

use super::*;

const DIR: &str = "/d";

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    disk
}

fn content(disk: &SimulatedDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name)).ok()?;
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[test]
fn what_is_synced_survives_every_power_failure() {
    let disk = disk();
    let file = disk.create(&path("a")).unwrap();
    file.write_all_at(&[7; 2_000], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    for seed in 0..100 {
        assert_eq!(content(&disk.after_power_failure(seed), "a"), Some(vec![7; 2_000]));
    }
}

#[test]
fn a_name_that_is_not_synced_may_be_lost_though_its_bytes_are_synced() {
    let disk = disk();
    disk.create(&path("a")).unwrap().sync().unwrap();
    let survives: Vec<bool> = (0..100).map(|seed| content(&disk.after_power_failure(seed), "a").is_some()).collect();
    assert!(survives.contains(&true) && survives.contains(&false));
}

#[test]
fn a_write_that_is_not_synced_may_be_whole_torn_or_lost() {
    let disk = disk();
    let file = disk.create(&path("a")).unwrap();
    file.set_len(2_048).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file.write_all_at(&[7; 2_048], 0).unwrap();
    let sevens = |seed| {
        let left = content(&disk.after_power_failure(seed), "a").unwrap();
        left.chunks(512).filter(|sector| sector[0] == 7).count()
    };
    let seen: Vec<usize> = (0..200).map(sevens).collect();
    assert!((0..=4).all(|sectors| seen.contains(&sectors)), "{seen:?}");
}

#[test]
fn a_replaced_file_is_the_old_one_or_the_new_one_wherever_power_fails() {
    for point in 0.. {
        let disk = disk();
        super::super::replace_file(&disk, &path("a"), b"old").unwrap();
        let before = disk.operations();
        disk.crash_at(CrashPoint(before + point));
        let replaced = super::super::replace_file(&disk, &path("a"), b"new");
        for seed in 0..50 {
            let left = content(&disk.after_power_failure(seed), "a").unwrap();
            assert!(left == b"old" || left == b"new", "{left:?} at {point}, seed {seed}");
            assert!(replaced.is_err() || left == b"new", "what was confirmed must stay");
        }
        if replaced.is_ok() {
            return;
        }
    }
}

#[test]
fn nothing_works_after_a_power_failure() {
    let disk = disk();
    let file = disk.create(&path("a")).unwrap();
    disk.crash_at(CrashPoint(disk.operations()));
    assert!(file.write_all_at(b"x", 0).is_err() && file.sync().is_err() && disk.open(&path("a")).is_err());
    assert!(disk.has_crashed());
}

#[test]
fn a_file_with_two_names_is_one_file_afterwards() {
    let (disk, other) = (disk(), Path::new("/other"));
    disk.create_dir(other).unwrap();
    let file = disk.create(&path("a")).unwrap();
    disk.hard_link(&path("a"), &other.join("b")).unwrap();
    assert!(disk.hard_link(&path("a"), &other.join("b")).is_err());
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk.sync_dir(other).unwrap();
    file.write_all_at(&[7; 2_000], 0).unwrap();
    for seed in 0..50 {
        let left = disk.after_power_failure(seed);
        let one = super::super::read_file(&left, &path("a")).unwrap();
        assert_eq!(super::super::read_file(&left, &other.join("b")).unwrap(), one);
        left.open(&path("a")).unwrap().write_all_at(b"x", 0).unwrap();
        assert_eq!(super::super::read_file(&left, &other.join("b")).unwrap()[0], b'x');
    }
}

#[test]
fn what_a_killed_process_did_not_sync_is_there_until_power_fails() {
    let disk = disk();
    let file = disk.create(&path("a")).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    disk.crash_at(CrashPoint(disk.operations()));
    assert!(file.sync().is_err());
    disk.restart();
    assert_eq!(content(&disk, "a").unwrap(), b"new");
    let left: Vec<_> = (0..50).map(|seed| content(&disk.after_power_failure(seed), "a").unwrap()).collect();
    assert!(left.contains(&b"new".to_vec()) && left.contains(&Vec::new()));
}
