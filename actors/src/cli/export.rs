//! `fellrec export`: what a client trained, for Hugging Face's libraries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use fellrec::blueprint::Blueprint;
use fellrec::config::Config;
use fellrec::export::{EXTRA, Exported, adapter, merged};
use fellrec::federation::member::Member;
use fellrec::federation::round::{Source, StateId};
use fellrec::federation::track::Track;
use fellrec::ids::{ClientId, Round};
use fellrec::model::cut::Place;
use fellrec::model::slice::Slice;
use fellrec::report::History;

use super::output::{print, say};
use super::whole_folder::{is_taken, write_folder};
use super::{ExitStatus, WrongUsage};
use crate::folder::RunFolder;

const EXAMPLES: &str = "\
The client's best state by its validation users is exported, or that of --round.

Examples:
  fellrec export runs/demo --client 0 --format peft --out adapters/client-0
  fellrec export runs/demo --client 0 --format merged --out models/client-0
  fellrec simulate --set model.checkpoint=models/base --set model.adapter=adapters/client-0";

/// Write what a client trained as a PEFT adapter or as whole weights
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// The run folder
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Whose model
    #[arg(short, long, value_name = "NUMBER")]
    pub client: u32,
    /// What for
    #[arg(short, long)]
    pub format: Format,
    /// The folder to write
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// The state that this round started from instead of the best one
    #[arg(long, value_name = "N")]
    pub round: Option<u64>,
    /// Replaces what is in the folder
    #[arg(long)]
    pub force: bool,
}

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// LoRA matrices that Hugging Face PEFT loads on the base
    Peft,
    /// Whole weights that transformers loads
    Merged,
}

/// Exports.
///
/// # Errors
/// No such run, client or state; a model that the format cannot hold; the disk's.
pub fn run(args: ExportArgs) -> Result<ExitStatus> {
    let out = args.out.display();
    ensure!(args.force || !is_taken(&args.out), "{out} is not empty; --force replaces it");
    let folder = RunFolder::new(args.run.clone());
    let path = folder.config();
    let text = fs::read_to_string(&path)
        .with_context(|| format!("no run to export: failed to read {}", path.display()))?;
    let blueprint = Blueprint::new(Config::from_toml(&text, &path)?)?;
    let client = ClientId(args.client);
    let clients = blueprint.clients().len();
    if args.client as usize >= clients {
        let (got, expected) = (args.client.to_string(), format!("0 to {}", clients - 1));
        return Err(WrongUsage { argument: "--client", got, expected }.into());
    }
    let state = state(&folder, &blueprint, client, args.round)?;
    let trained =
        trained(&folder, &blueprint, client, state).with_context(|| held(&args.run, client))?;
    let home = std::path::absolute(&args.out).context("--out")?;
    let Exported { extra, base } = write_folder(&args.out, |partial| {
        Ok(match args.format {
            Format::Peft => adapter(&blueprint, &trained, partial, &home)?,
            Format::Merged => merged(&blueprint, &trained, partial)?,
        })
    })?;
    if !extra.is_empty() {
        say(&format!(
            "{EXTRA} holds what neither PEFT nor transformers has a place for: {}",
            extra.join(", ")
        ));
    }
    let next = match (args.format, blueprint.start.checkpoint()) {
        (Format::Merged, _) => format!("fellrec model inspect {out}"),
        (Format::Peft, Some(checkpoint)) => {
            let base = checkpoint.folder().display();
            format!("fellrec simulate --set model.checkpoint={base} --set model.adapter={out}")
        }
        (Format::Peft, None) => {
            format!("fellrec simulate --set model.checkpoint={out}/base --set model.adapter={out}")
        }
    };
    let beside = if base { ", the base it was drawn on in base/" } else { "" };
    print(&format!(
        "exported    {client}, state of round {}, to {out}{beside}\nnext        {next}",
        state.round
    ))?;
    Ok(ExitStatus::Success)
}

/// The client's best state, or that of a round.
fn state(
    folder: &RunFolder,
    blueprint: &Blueprint,
    client: ClientId,
    round: Option<u64>,
) -> Result<StateId> {
    if let Some(round) = round {
        return Ok(StateId { round: Round(round), source: Source::Own });
    }
    let history = History::read(&folder.events()).context("no history of the run")?;
    if let Some(finish) = &history.finish
        && let Some(result) = finish.test.get(&client)
    {
        return Ok(StateId { round: result.best_round, source: result.best_source });
    }
    // Not finished yet: the best one as of the last commit.
    let (newest, skipped) = folder.run_store(&blueprint.config).newest(|_| Ok(()));
    let Some(manifest) = newest else {
        match skipped.into_iter().next() {
            Some(skipped) => return Err(skipped.error).context("no usable commit"),
            None => bail!("{} holds no commit", folder.root().display()),
        }
    };
    let best = manifest.state.best.get(&client);
    let best = best.with_context(|| format!("{client} was never evaluated; give --round"))?;
    Ok(StateId { round: best.round, source: best.source })
}

/// The tensors of all places.
fn trained(
    folder: &RunFolder,
    blueprint: &Blueprint,
    client: ClientId,
    state: StateId,
) -> Result<Slice> {
    let config = &blueprint.config;
    let track = Track::ranked(&config.training);
    let mut tensors = Vec::new();
    for place in blueprint.layout.cut.places() {
        let store = match place {
            Place::Front | Place::Back => folder.client_store(client, config),
            Place::Stage(stage) => folder.stage_store(stage as u32, client, config),
        };
        let shared = folder.shared_store(config);
        let layout = blueprint.layout.clone();
        let member = Member::new(store, shared, layout, blueprint.start.clone(), config);
        tensors.extend(member.load(track, place, state)?.slice.tensors);
    }
    Ok(Slice::new(tensors))
}

/// Which states are there.
fn held(run: &Path, client: ClientId) -> String {
    let folder = run.join("clients").join(client.to_string());
    let names = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut rounds: Vec<u64> = names
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("round-")?.parse().ok())
        .collect();
    rounds.sort_unstable();
    let rounds: Vec<String> = rounds.iter().map(u64::to_string).collect();
    match rounds.is_empty() {
        true => format!("{} holds no states any more", folder.display()),
        false => format!("{} holds states of rounds {}", folder.display(), rounds.join(", ")),
    }
}
