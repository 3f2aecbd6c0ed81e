//! `postrider keys rotate-master`: changes the master key, step by step, and shows how far it is.
//!
//! Each step is a request to the running server, or is done here if no server runs in the data directory. The state is
//! in the store, so the command may be interrupted and run again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::clock::SystemClock;
use crate::server::admin::{self, AdminError, AdminRequest, AdminResponse, KeyDigits};
use crate::server::{Components, OpenedFor};
use postrider_service::{KeyChangeProgress, KeyChangeStage};
use postrider_store::sealing::key_state::Phase;

use super::admin::unexpected;
use super::options::DataOptions;
use super::output;

#[derive(Debug, Args)]
pub struct RotateMasterOptions {
    /// File with the new master key, 64 hexadecimal digits.
    #[arg(long, value_name = "FILE")]
    new_key_file: PathBuf,
    #[command(flatten)]
    data: DataOptions,
}

/// How often the command asks whether the nodes that it waits for have followed.
const WAIT: Duration = Duration::from_millis(500);

pub async fn run(options: RotateMasterOptions) -> anyhow::Result<()> {
    let settings = options.data.settings()?;
    let digits = KeyDigits::read(&options.new_key_file).context("cannot use the new master key (--new-key-file)")?;
    let request = AdminRequest::RotateMaster { key: digits.clone() };
    let socket = settings.admin_socket_path();
    let mut shown = String::new();
    let mut opened: Option<Components> = None;
    let done = loop {
        let response = match &opened {
            Some(components) => {
                let request = AdminRequest::RotateMaster { key: digits.clone() };
                admin::execute(&components.operator, request).await
            }
            None => match admin::ask(&socket, &request).await {
                Ok(response) => response,
                Err(AdminError::NoServer) => {
                    let clock = Arc::new(SystemClock);
                    opened = Some(Components::open_with(&settings, clock, OpenedFor::Command, digits.key()).await?);
                    continue;
                }
                Err(error) => {
                    return Err(error).context(
                        "the running server did not answer; what is done stands: run the same command again to continue",
                    );
                }
            },
        };
        let progress = match response {
            AdminResponse::MasterRotated { progress } => progress,
            other => break unexpected(other),
        };
        let line = text(&progress);
        if line != shown {
            output::note(&line);
            shown = line;
        }
        match progress.stage {
            KeyChangeStage::WaitingFor { .. } => tokio::time::sleep(WAIT).await,
            KeyChangeStage::Done { unreadable, .. } => break Ok((progress.to, unreadable)),
            KeyChangeStage::NothingToDo => break Ok((progress.to, 0)),
            KeyChangeStage::Begun { .. } | KeyChangeStage::Resealing { .. } => {}
        }
    };
    if let Some(components) = opened {
        components.close().await;
    }
    let (to, unreadable) = done?;
    output::line(format_args!(
        "The master key is {to}. Start servers and commands with the new key from now on: the old one is refused. Keep the \
         old key as long as you keep backups from before."
    ))?;
    if unreadable > 0 {
        bail!("{unreadable} sealed values open with neither key and were left: see the log for their records");
    }
    Ok(())
}

fn text(progress: &KeyChangeProgress) -> String {
    match &progress.stage {
        KeyChangeStage::WaitingFor { nodes } => {
            let nodes: Vec<String> = nodes.iter().map(u16::to_string).collect();
            format!(
                "waiting for the running nodes {} to follow; a node of an earlier version never does: upgrade or stop it",
                nodes.join(", ")
            )
        }
        KeyChangeStage::Begun { phase: Phase::Announced } => "every node learns the new key".to_owned(),
        KeyChangeStage::Begun { phase: Phase::Switching } => "new values are sealed with the new key".to_owned(),
        KeyChangeStage::Begun { phase: Phase::Resealing } => "stored values are sealed anew".to_owned(),
        KeyChangeStage::Resealing { done, of } => format!("{done} values sealed anew; {of} belong to endpoints"),
        KeyChangeStage::Done { resealed, .. } => format!("{resealed} values sealed anew; the change is complete"),
        KeyChangeStage::NothingToDo => "the store has this master key already: nothing to do".to_owned(),
    }
}
