//! The stores that are measured, behind one interface.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use tallyhouse_disk::RealDisk;
use tallyhouse_ledger::{Asked, Day, Entry, Fingerprint, IdTimes, Ledger, LedgerSettings, NewRun};

/// 128 bits of a keyed hash.
pub type Id = u128;

/// A set of ids on disk.
pub trait Store {
    /// Which of these ids are there.
    fn known(&self, ids: &[Id]) -> Result<Vec<bool>>;
    /// Adds ids. They need not be durable at once: the log keeps them until they are.
    fn add(&self, ids: &[Id]) -> Result<()>;
    /// Waits until background work is done.
    fn settle(&self) -> Result<()>;
    /// Bytes of its files.
    fn disk_bytes(&self) -> Result<u64>;
}

pub fn open(name: &str, dir: &Path) -> Result<Box<dyn Store>> {
    Ok(match name {
        "ledger" => Box::new(LedgerStore::open(dir)?),
        "fjall" => Box::new(FjallStore::open(dir)?),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Box::new(RocksStore::open(dir)?),
        other => bail!("there is no store {other}"),
    })
}

fn dir_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { dir_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Ids of a run, as the service has them by default.
const RUN_IDS: u64 = 2_000_000;

/// The ledger, with recent ids in a hash set as the index has them in its table, and its background
/// work on a thread.
struct LedgerStore {
    dir: PathBuf,
    ledger: Arc<Ledger>,
    recent: Mutex<HashSet<Id>>,
    stop: Arc<AtomicBool>,
    maintenance: Option<JoinHandle<()>>,
}

impl LedgerStore {
    fn open(dir: &Path) -> Result<Self> {
        let settings = LedgerSettings { run_ids: RUN_IDS, ids_max: u64::MAX / 2, key_check: 1 };
        let ledger = Arc::new(Ledger::open(Arc::new(RealDisk), dir, settings)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (of_thread, until) = (Arc::clone(&ledger), Arc::clone(&stop));
        let maintenance = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if !of_thread.maintain().expect("the disk works") {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        });
        let recent = Mutex::new(HashSet::new());
        Ok(Self { dir: dir.to_owned(), ledger, recent, stop, maintenance: Some(maintenance) })
    }

    fn write(&self, recent: &mut HashSet<Id>) -> Result<()> {
        let mut entries: Vec<Entry> =
            recent.drain().map(|id| Entry { id: Fingerprint::of_hash(id), payload: 0, day: Day(1) }).collect();
        entries.sort_unstable();
        let run = NewRun {
            expected: entries.len() as u64,
            entries: entries.into_iter(),
            id_times: IdTimes::default(),
            has_untimed: true,
            covered: Vec::new(),
        };
        Ok(self.ledger.add_run(run, |_| true)?)
    }
}

impl Store for LedgerStore {
    fn known(&self, ids: &[Id]) -> Result<Vec<bool>> {
        let recent = self.recent.lock().expect("no panic");
        let asked: Vec<Asked> =
            ids.iter().map(|id| Asked { id: Fingerprint::of_hash(*id), time_in_id: None }).collect();
        let found = self.ledger.find(&asked)?;
        Ok(ids.iter().zip(found).map(|(id, found)| found.is_some() || recent.contains(id)).collect())
    }

    fn add(&self, ids: &[Id]) -> Result<()> {
        let mut recent = self.recent.lock().expect("no panic");
        recent.extend(ids);
        if recent.len() as u64 >= RUN_IDS { self.write(&mut recent) } else { Ok(()) }
    }

    fn settle(&self) -> Result<()> {
        self.write(&mut self.recent.lock().expect("no panic"))?;
        while self.ledger.maintain()? {}
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64> {
        dir_bytes(&self.dir)
    }
}

impl Drop for LedgerStore {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(maintenance) = self.maintenance.take() {
            let _ = maintenance.join();
        }
    }
}

/// What a general store keeps of an id: the same ten bytes, and six for payload and day.
fn key(id: Id) -> [u8; 10] {
    *id.to_be_bytes().first_chunk().expect("16 bytes")
}

const VALUE: [u8; 6] = [0; 6];

struct FjallStore {
    dir: PathBuf,
    db: fjall::Database,
    ids: fjall::Keyspace,
}

impl FjallStore {
    fn open(dir: &Path) -> Result<Self> {
        let db = fjall::Database::builder(dir).open()?;
        let ids = db.keyspace("ids", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { dir: dir.to_owned(), db, ids })
    }
}

impl Store for FjallStore {
    fn known(&self, ids: &[Id]) -> Result<Vec<bool>> {
        ids.iter().map(|id| Ok(self.ids.contains_key(key(*id))?)).collect()
    }

    fn add(&self, ids: &[Id]) -> Result<()> {
        let mut batch = self.db.batch();
        ids.iter().for_each(|id| batch.insert(&self.ids, key(*id), VALUE));
        Ok(batch.commit()?)
    }

    fn settle(&self) -> Result<()> {
        self.db.persist(fjall::PersistMode::SyncAll)?;
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64> {
        dir_bytes(&self.dir)
    }
}

#[cfg(feature = "rocksdb")]
struct RocksStore {
    dir: PathBuf,
    db: rocksdb::DB,
}

#[cfg(feature = "rocksdb")]
impl RocksStore {
    fn open(dir: &Path) -> Result<Self> {
        let mut table = rocksdb::BlockBasedOptions::default();
        table.set_bloom_filter(10.0, false);
        table.set_block_cache(&rocksdb::Cache::new_lru_cache(256 << 20));
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(64 << 20);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.increase_parallelism(2);
        Ok(Self { dir: dir.to_owned(), db: rocksdb::DB::open(&options, dir)? })
    }
}

#[cfg(feature = "rocksdb")]
impl Store for RocksStore {
    fn known(&self, ids: &[Id]) -> Result<Vec<bool>> {
        let keys = ids.iter().map(|id| key(*id));
        Ok(self.db.multi_get(keys).into_iter().map(|value| value.map(|value| value.is_some())).collect::<Result<_, _>>()?)
    }

    fn add(&self, ids: &[Id]) -> Result<()> {
        let mut batch = rocksdb::WriteBatch::default();
        ids.iter().for_each(|id| batch.put(key(*id), VALUE));
        // The log is what is durable.
        let mut options = rocksdb::WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(batch, &options)?)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64> {
        dir_bytes(&self.dir)
    }
}
