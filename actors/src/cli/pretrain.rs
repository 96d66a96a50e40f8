//! `fellrec pretrain`: a base from the catalogue's own text, as a folder for `model.checkpoint`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use fellrec::config::BackboneKind;
use fellrec::data;
use fellrec::pretrain::{BaseRecord, Pretraining, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::output::{print, print_json};
use super::whole_folder::{is_taken, write_folder};
use super::{ConfigArgs, ExitStatus, Verbosity};

const EXAMPLES: &str = "\
Examples:
  fellrec pretrain --config ml-1m --data data/ml-1m --set model.backbone=bigrec --out bases/ml-1m
  fellrec pretrain --set model.backbone=recformer --steps 500
  fellrec simulate --set model.backbone=bigrec --set model.checkpoint=bases/ml-1m

Only the catalogue is used, no interaction. What is there already is not made again.";

/// Digits of the key that name a folder.
const NAME_DIGITS: usize = 12;

/// Make a small base from the catalogue's text, to start runs from
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PretrainArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The base's folder [default: a folder in run.out, named by what it is made from]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Optimiser steps; short for --set pretrain.steps=N
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Replaces another base in the folder
    #[arg(long)]
    pub force: bool,
    /// Writes what came of it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    folder: &'a Path,
    /// Whether it was there already.
    cached: bool,
    seconds: f64,
    #[serde(flatten)]
    record: &'a BaseRecord,
}

/// Makes the base, unless it is there.
///
/// # Errors
/// A wrong configuration, a catalogue that cannot be read, a folder that holds something else.
pub fn run(args: PretrainArgs, verbosity: &Verbosity) -> Result<ExitStatus> {
    let PretrainArgs { mut config, out, steps, force, json } = args;
    config.set.extend(steps.map(|steps| format!("pretrain.steps={steps}")));
    let config = config.load()?.config;
    let catalogue = data::load(&config.data, config.run.seed)?.dataset.catalogue;
    let threads = config.runtime.compute_threads.get().map(|threads| threads.get() as usize);
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // One model and nobody beside it: the threads are libtorch's own.
    tch::set_num_threads(threads as i32);
    let (runs, steps) = (config.run.out.clone(), config.pretrain.steps);
    let pretraining = Pretraining::new(config, catalogue)?;
    let key = pretraining.key().to_string();
    let folder = out.unwrap_or_else(|| runs.join(format!("base-{}", &key[..NAME_DIGITS])));
    let started = Instant::now();
    if let Some(record) = held(&folder, &key, force)? {
        return tell(&folder, &record, true, started, json);
    }
    let bar = bar(steps, verbosity.is_quiet());
    let base = pretraining.run(|Progress { step, loss }| {
        bar.set_position(step);
        bar.set_message(format!("loss {loss:.3}"));
    })?;
    bar.finish_and_clear();
    write_folder(&folder, |partial| Ok(base.write(partial)?))?;
    tell(&folder, base.record(), false, started, json)
}

/// The record of a base that need not be made again.
fn held(folder: &Path, key: &str, force: bool) -> Result<Option<BaseRecord>> {
    let at = folder.display();
    match BaseRecord::read(folder)? {
        Some(record) if record.key == key => Ok(Some(record)),
        _ if force => Ok(None),
        Some(record) => bail!(
            "{at} holds a base made from something else (key {}, asked for {}); --force replaces it",
            &record.key[..NAME_DIGITS.min(record.key.len())],
            &key[..NAME_DIGITS],
        ),
        None if is_taken(folder) => {
            bail!("{at} is not empty and holds no base of fellrec pretrain; --force replaces it")
        }
        None => Ok(None),
    }
}

fn bar(steps: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(steps), target);
    let style = ProgressStyle::with_template("[{bar:30}] {pos}/{len} steps, {msg}, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
}

fn tell(
    folder: &Path,
    record: &BaseRecord,
    cached: bool,
    started: Instant,
    json: bool,
) -> Result<ExitStatus> {
    let seconds = started.elapsed().as_secs_f64();
    if json {
        print_json(&Outcome { folder, cached, seconds, record })?;
        return Ok(ExitStatus::Success);
    }
    let [before, after] = record.held_out_loss;
    let measured = match record.backbone {
        BackboneKind::Recformer => format!(
            "loss {before:.3} before, {after:.3} after, in nats, of finding an item in a batch of {}",
            record.pretrain.batch
        ),
        _ => format!(
            "perplexity {:.1} before, {:.1} after, a token of the answers",
            before.exp(),
            after.exp()
        ),
    };
    let made = if cached { "already there" } else { "made" };
    let at = folder.display();
    print(&format!(
        "base        {at}, {made}\n\
         model       {} parameters, {} tokens\n\
         held out    {} items: {measured}\n\
         next        fellrec simulate --set model.backbone={} --set model.checkpoint={at}",
        record.parameters, record.tokens, record.held_out_items, record.backbone,
    ))?;
    Ok(ExitStatus::Success)
}
