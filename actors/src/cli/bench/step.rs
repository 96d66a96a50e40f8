//! `fellrec bench step`: what one optimiser step costs each role of the split.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use fellrec::config::{DeviceName, DtypeName};

use crate::bench::{Role, StepBench, StepFigures, Weights};
use crate::cli::ExitStatus;
use crate::cli::model::CutArg;
use crate::cli::output::{print, print_json, table};

const EXAMPLES: &str = "\
Examples:
  fellrec bench step --random-weights qwen2.5-0.5b --dtype bf16
  fellrec bench step --random-weights llama-2-7b --dtype bf16 --device cuda:0 --cut 1/1,2/2,4/4 --seq 512
  fellrec bench step --random-weights qwen2.5-0.5b --role shard --recompute --clients 8 --seq 16
  fellrec bench step --checkpoint models/Qwen2.5-0.5B --role client --json

Networks: llama-2-7b, llama-3.1-8b, llama-3.2-1b, qwen2.5-0.5b, qwen2.5-7b, qwen3-8b.";

/// A step to measure.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StepArgs {
    /// Random weights in the shape of a published network
    #[arg(long, value_name = "NAME", required_unless_present = "checkpoint")]
    random_weights: Option<String>,
    /// A Hugging Face folder
    #[arg(long, value_name = "DIR", conflicts_with = "random_weights")]
    checkpoint: Option<PathBuf>,
    /// Whose part; each one in a process of its own unless one is named
    #[arg(long, default_value = "each")]
    role: RoleArg,
    /// Blocks at the front and at the back of the client
    #[arg(long, value_name = "FRONT/BACK", value_delimiter = ',', default_value = "1/1")]
    cut: Vec<CutArg>,
    /// Sequences of a step
    #[arg(long, default_value = "1")]
    batch: NonZeroU32,
    /// Tokens of a sequence
    #[arg(long, default_value = "128")]
    seq: NonZeroU32,
    /// Steps that are measured, after one that is not
    #[arg(long, default_value = "3")]
    steps: NonZeroU32,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: DeviceName,
    /// Number type of frozen weights and activations
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: DtypeName,
    /// Computes blocks again in the backward pass (runtime.recompute)
    #[arg(long)]
    recompute: bool,
    /// Clients whose passes a shard computes as one (runtime.clients_at_once)
    #[arg(long, default_value = "1")]
    clients: NonZeroU32,
    /// Rank of the adapters on q_proj and v_proj
    #[arg(long, default_value = "8")]
    rank: NonZeroU32,
    /// What the device does at most by its data sheet; without, large products are measured
    #[arg(long, value_name = "TFLOP/S")]
    peak_tflops: Option<f64>,
    /// Writes the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Client and shard for every cut, and the whole model
    Each,
    /// Front, back, head and loss
    Client,
    /// The blocks between
    Shard,
    /// The unsplit model
    Whole,
}

fn device(text: &str) -> Result<DeviceName, String> {
    toml::Value::from(text).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn dtype(text: &str) -> Result<DtypeName, String> {
    toml::Value::from(text).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

/// Measures.
///
/// # Errors
/// No such network, cut or device; a process that failed.
pub fn run(args: &StepArgs) -> Result<ExitStatus> {
    let single = match args.role {
        RoleArg::Each => None,
        RoleArg::Client => Some(Role::Client),
        RoleArg::Shard => Some(Role::Shard),
        RoleArg::Whole => Some(Role::Whole),
    };
    let figures = match (single, args.cut.as_slice()) {
        // Already the process of its own.
        (Some(role), [cut]) => vec![args.bench(role, *cut)?.run()?],
        (Some(role), cuts) => {
            cuts.iter().map(|cut| args.apart(role, *cut)).collect::<Result<_>>()?
        }
        (None, cuts) => {
            let roles = |cut: &CutArg| [(Role::Client, *cut), (Role::Shard, *cut)];
            let whole = cuts.first().map(|cut| (Role::Whole, *cut));
            let all = cuts.iter().flat_map(roles).chain(whole);
            all.map(|(role, cut)| args.apart(role, cut)).collect::<Result<_>>()?
        }
    };
    match (args.json, figures.as_slice()) {
        (true, [one]) => print_json(one)?,
        (true, all) => print_json(&all)?,
        (false, all) => print(&describe(all))?,
    }
    Ok(ExitStatus::Success)
}

impl StepArgs {
    fn bench(&self, role: Role, cut: CutArg) -> Result<StepBench> {
        let weights = match (&self.random_weights, &self.checkpoint) {
            (Some(name), _) => Weights::Random(name.clone()),
            (None, Some(folder)) => Weights::Checkpoint(folder.clone()),
            (None, None) => anyhow::bail!("give --random-weights or --checkpoint"),
        };
        Ok(StepBench {
            weights,
            role,
            cut: (cut.front, cut.back),
            batch: i64::from(self.batch.get()),
            seq: i64::from(self.seq.get()),
            steps: self.steps.get(),
            device: self.device,
            dtype: self.dtype,
            recompute: self.recompute,
            clients: self.clients.get(),
            rank: i64::from(self.rank.get()),
            peak_tflops: self.peak_tflops,
        })
    }

    /// In a process of its own: the highest use of memory is one number a process.
    fn apart(&self, role: Role, cut: CutArg) -> Result<StepFigures> {
        let program = std::env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(program);
        let role = serde_json::to_value(role)?;
        let role = role.as_str().context("a role is a word")?;
        command.args(["bench", "step", "--json", "--role", role, "--cut", &cut.to_string()]);
        for (flag, value) in [
            ("--batch", self.batch.to_string()),
            ("--seq", self.seq.to_string()),
            ("--steps", self.steps.to_string()),
            ("--device", self.device.to_string()),
            ("--dtype", format!("{:?}", self.dtype).to_lowercase()),
            ("--clients", self.clients.to_string()),
            ("--rank", self.rank.to_string()),
        ] {
            command.args([flag, &value]);
        }
        if let Some(name) = &self.random_weights {
            command.args(["--random-weights", name]);
        }
        if let Some(folder) = &self.checkpoint {
            command.arg("--checkpoint").arg(folder);
        }
        if self.recompute {
            command.arg("--recompute");
        }
        if let Some(peak) = self.peak_tflops {
            command.args(["--peak-tflops", &peak.to_string()]);
        }
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("failed to start the process of {role}"))?;
        ensure!(
            output.status.success(),
            "the process of {role} at cut {cut} ended with {}",
            output.status
        );
        serde_json::from_slice(&output.stdout).context("the process wrote no figures")
    }
}

fn describe(figures: &[StepFigures]) -> String {
    let mut rows = table([
        "cut",
        "role",
        "clients",
        "parameters",
        "step",
        "tokens/s",
        "TFLOP/s",
        "MFU",
        "resident",
        "on the GPU",
        "over the cut",
    ]);
    for figure in figures {
        let whole = figure.role == Role::Whole;
        rows.add_row([
            if whole { "none".to_owned() } else { figure.cut.clone() },
            format!("{:?}", figure.role).to_lowercase(),
            figure.clients.to_string(),
            format!("{:.1} M", figure.parameters as f64 / 1e6),
            format!("{:.3} s", figure.median_seconds),
            format!("{:.0}", figure.tokens_per_second),
            format!("{:.3}", figure.tflops),
            format!("{:.0} %", figure.utilisation * 100.0),
            format!("{:.0} MiB", figure.peak_resident_mib),
            figure.device_mib.map_or("none".to_owned(), |mib| format!("{mib:.0} MiB")),
            if whole { "none".to_owned() } else { format!("{:.1} MiB", figure.wire_mib) },
        ]);
    }
    let Some(first) = figures.first() else { return rows.to_string() };
    let against = match first.peak_measured {
        true => "the products that each process measured",
        false => "the given peak",
    };
    format!(
        "{rows}\n\nMFU: model FLOPs, each product counted once, against {against}, first {:.3} TFLOP/s",
        first.peak_tflops
    )
}
