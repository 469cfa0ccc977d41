//! Harm done to the files of the id ledger while the service is down.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::fault::LedgerDamage;

/// The ledger's runs, in no order that means anything.
fn runs(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "run") {
            runs.push(path);
        }
    }
    runs.sort();
    Ok(runs)
}

/// Damages a ledger. Returns whether there was anything to damage.
pub(crate) fn damage(dir: &Path, how: LedgerDamage, random: &mut StdRng) -> Result<bool> {
    let mut runs = runs(dir)?;
    match how {
        LedgerDamage::RemoveAll => {
            std::fs::remove_dir_all(dir)?;
            return Ok(true);
        }
        LedgerDamage::RemoveManifest => {
            std::fs::remove_file(dir.join("manifest"))?;
            return Ok(true);
        }
        LedgerDamage::FlipRun | LedgerDamage::CutRun | LedgerDamage::RemoveRun | LedgerDamage::FlipStored => {}
    }
    if runs.is_empty() {
        return Ok(false);
    }
    let run = runs.swap_remove(random.random_range(0..runs.len()));
    let mut bytes = std::fs::read(&run)?;
    match how {
        LedgerDamage::RemoveRun => std::fs::remove_file(run)?,
        LedgerDamage::CutRun => {
            bytes.truncate(random.random_range(0..bytes.len()));
            std::fs::write(run, bytes)?;
        }
        _ => {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
            std::fs::write(run, bytes)?;
        }
    }
    Ok(true)
}
