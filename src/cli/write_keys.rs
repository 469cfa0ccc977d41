//! `tallyhouse write-keys`: what browsers and other people's libraries send instead of a token.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::connection::{Address, explain};
use super::style::Style;
use super::table::Table;
use super::time_args::{self, Precision};
use crate::transport::proto;
use crate::transport::proto::write_key_service_client::WriteKeyServiceClient;

/// What to do with write keys.
#[derive(Clone, Debug, clap::Args)]
pub struct WriteKeysArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Create a key and print what callers send, once.
    Create {
        /// What people call it.
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// List all keys, the oldest first.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Revoke a key for good.
    Revoke {
        /// The id of the key, as `list` shows it.
        key_id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Output {
    #[command(flatten)]
    address: Address,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl WriteKeysArgs {
    /// Asks and shows.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (Action::Create { output, .. } | Action::List { output } | Action::Revoke { output, .. }) = &self.action;
        let mut client = WriteKeyServiceClient::new(output.address.connect().await?);
        let as_json = output.json;
        let (text, value) = match self.action {
            Action::Create { name, .. } => {
                let answer = client.create_write_key(proto::CreateWriteKeyRequest { name }).await;
                let answer = answer.map_err(|status| explain(&status)).context("cannot create the write key")?;
                let proto::CreateWriteKeyResponse { write_key, text } = answer.into_inner();
                let hint = "This is the only time it is shown.";
                (format!("{text}\n{}\n", Style::stdout().dim(hint)), with_text(&write_key.unwrap_or_default(), &text))
            }
            Action::List { .. } => {
                let answer = client.list_write_keys(proto::ListWriteKeysRequest {}).await;
                let answer = answer.map_err(|status| explain(&status)).context("cannot list write keys")?;
                let keys = answer.into_inner().write_keys;
                (render(&keys, Style::stdout()), json!({ "write_keys": keys.iter().map(to_json).collect::<Value>() }))
            }
            Action::Revoke { key_id, .. } => {
                let answer = client.revoke_write_key(proto::RevokeWriteKeyRequest { key_id }).await;
                let answer = answer.map_err(|status| explain(&status)).context("cannot revoke the write key")?;
                let key = answer.into_inner().write_key.unwrap_or_default();
                (format!("revoked: {} ({})\n", key.name, key.prefix), to_json(&key))
            }
        };
        if as_json {
            super::print_json(&value)?
        } else {
            super::print(&text)?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn render(keys: &[proto::WriteKey], style: Style) -> String {
    if keys.is_empty() {
        return "there are no write keys; create one: tallyhouse write-keys create NAME\n".to_owned();
    }
    let mut table = Table::new().text("id").text("name").text("begins").text("created (UTC)").text("revoked (UTC)");
    let readable = |time: &Option<prost_types::Timestamp>| {
        let time = time.as_ref().map(time_args::from_proto);
        time.map(|time| time_args::readable(time, Precision::Minute)).unwrap_or_default()
    };
    for key in keys {
        table.row([
            key.key_id.clone(),
            key.name.clone(),
            key.prefix.clone(),
            readable(&key.created_at),
            readable(&key.revoked_at),
        ]);
    }
    table.render(style)
}

fn to_json(key: &proto::WriteKey) -> Value {
    json!({
        "key_id": key.key_id,
        "name": key.name,
        "prefix": key.prefix,
        "created_at": key.created_at.as_ref().map(time_args::rfc3339),
        "revoked_at": key.revoked_at.as_ref().map(time_args::rfc3339),
    })
}

fn with_text(key: &proto::WriteKey, text: &str) -> Value {
    let mut value = to_json(key);
    value["text"] = Value::from(text);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_without_their_texts() {
        let key = proto::WriteKey {
            key_id: "k1".to_owned(),
            name: "website".to_owned(),
            prefix: "thw_8sKx2v".to_owned(),
            ..Default::default()
        };
        let text = render(&[key], Style::plain());
        assert!(text.contains("website") && text.contains("thw_8sKx2v"), "{text}");
        assert!(render(&[], Style::plain()).contains("write-keys create"));
    }
}
