//! `tallyhouse audit repairs` and `tallyhouse audit undo`: list repairs and undo one.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::audit::{readable, rollup_name};
use super::connection::{Address, explain};
use super::sparkline::grouped;
use super::style::Style;
use super::table::Table;
use super::time_args::{self, WindowArgs};
use crate::transport::proto;
use crate::transport::proto::audit_service_client::AuditServiceClient;

/// Lists repairs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RepairsArgs {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    window: WindowArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Undoes a repair.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct UndoArgs {
    #[command(flatten)]
    address: Address,
    /// The repair's id, as `tallyhouse audit repairs` lists it.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl RepairsArgs {
    /// Lists the repairs.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let window = self.window.window(time_args::now())?;
        let mut client = AuditServiceClient::new(self.address.connect().await?);
        let listed = client.list_repairs(proto::ListRepairsRequest { window }).await;
        let repairs = listed.map_err(|status| explain(&status)).context("cannot list repairs")?.into_inner().repairs;
        print(&repairs, self.json)
    }
}

impl UndoArgs {
    /// Undoes the repair, and shows the new one that does so.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = AuditServiceClient::new(self.address.connect().await?);
        let undone = client.undo_repair(proto::UndoRepairRequest { repair_id: self.id }).await;
        let undone = undone.map_err(|status| explain(&status)).context("cannot take the repair back")?.into_inner();
        print(undone.repair.as_slice(), self.json)
    }
}

fn print(repairs: &[proto::Repair], is_json: bool) -> anyhow::Result<ExitCode> {
    if is_json {
        super::print_json(&Value::Array(repairs.iter().map(to_json).collect()))?;
    } else {
        super::print(&table(repairs).render(Style::stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

const fn state_name(state: proto::RepairState) -> &'static str {
    match state {
        proto::RepairState::Unspecified => "",
        proto::RepairState::Begun => "begun",
        proto::RepairState::Done => "done",
        proto::RepairState::Undone => "undone",
        proto::RepairState::Closed => "closed",
    }
}

fn table(repairs: &[proto::Repair]) -> Table {
    let mut table = Table::new().text("id").text("hour (UTC)").text("rollup").text("state");
    table = table.number("keys").number("added").number("taken").text("by").text("takes back");
    for repair in repairs {
        table.row([
            repair.id.clone(),
            readable(repair.hour.as_ref()),
            rollup_name(repair.rollup()).to_owned(),
            state_name(repair.state()).to_owned(),
            grouped(repair.keys),
            grouped(repair.added),
            grouped(repair.taken),
            repair.author.clone(),
            repair.undoes.clone(),
        ]);
    }
    table
}

fn to_json(repair: &proto::Repair) -> Value {
    json!({
        "id": repair.id,
        "hour": repair.hour.as_ref().map(time_args::rfc3339),
        "rollup": rollup_name(repair.rollup()),
        "state": state_name(repair.state()),
        "at": repair.at.as_ref().map(time_args::rfc3339),
        "keys": repair.keys,
        "added": repair.added,
        "taken": repair.taken,
        "author": repair.author,
        "undoes": repair.undoes,
    })
}
