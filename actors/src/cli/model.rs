//! `fellrec model`: what a pretrained folder holds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use fellrec::config::{Layers, Loaded, LoraConfig, SplitConfig, Trainable};
use fellrec::data::read_tokenizer;
use fellrec::model::architecture::BlockKind;
use fellrec::model::cut::{Cut, Place};
use fellrec::model::layout::{Layout, model_specs, text_ends};
use fellrec::model::pretrained::Checkpoint;
use fellrec::model::spec::TensorSpec;
use fellrec::model::start::StartingPoint;
use fellrec::split::{ClientSettings, WholePlan};
use serde::Serialize;
use tch::Tensor;
use tokenizers::Tokenizer;

use super::output::{print, print_json, table};
use super::{ExitStatus, WrongUsage};

/// Tokens of the last position that a terminal shows.
const TOP: i64 = 5;

/// Look at a pretrained model
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Architecture of a Hugging Face folder, who holds what for each cut, and logits
    Inspect(InspectArgs),
}

/// Arguments of `model inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
The numbers are read for --ids only; without, a folder of any size takes a moment.

Examples:
  fellrec model inspect models/Qwen2.5-0.5B
  fellrec model inspect models/Qwen2.5-0.5B --cut 2/2 --json
  fellrec model inspect models/Qwen2.5-0.5B --ids 785,3974,13876")]
pub struct InspectArgs {
    /// The folder: config.json, safetensors, tokenizer.json
    folder: PathBuf,
    /// Runs these token ids and shows the logits of the last position
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    ids: Vec<i64>,
    /// Blocks at the front and at the back of the client [default: several]
    #[arg(long, value_name = "FRONT/BACK")]
    cut: Option<CutArg>,
    /// Writes JSON, with all logits
    #[arg(long)]
    json: bool,
}

/// `FRONT/BACK`.
#[derive(Clone, Copy, Debug)]
pub struct CutArg {
    /// Blocks at the front.
    pub front: i64,
    /// Blocks at the back.
    pub back: i64,
}

impl fmt::Display for CutArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.front, self.back)
    }
}

impl FromStr for CutArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let halves = text.split_once('/').and_then(|(front, back)| {
            Some(Self { front: front.parse().ok()?, back: back.parse().ok()? })
        });
        halves.ok_or_else(|| "expected blocks at the front and at the back, such as 1/1".to_owned())
    }
}

/// What a folder holds.
#[derive(Debug, Serialize)]
struct Inspection {
    folder: PathBuf,
    family: String,
    /// Numbers stored in each type.
    dtypes: BTreeMap<String, u64>,
    hidden: i64,
    layers: i64,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    ffn: i64,
    vocab: i64,
    /// `None` for encoders.
    tied: Option<bool>,
    rope: Option<String>,
    /// Longest text of an encoder.
    positions: Option<i64>,
    windows: Option<Vec<i64>>,
    tokenizer_tokens: Option<usize>,
    bos: Option<i64>,
    eos: Vec<i64>,
    pad: Option<i64>,
    parameters: i64,
    cuts: Vec<Holdings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

/// Parameters at each place, and their bytes in the folder's number types.
#[derive(Debug, Serialize)]
struct Holdings {
    cut: String,
    front: i64,
    body: i64,
    back: i64,
    front_bytes: u64,
    body_bytes: u64,
    back_bytes: u64,
}

/// Runs the subcommand.
///
/// # Errors
/// A folder that is no model, a cut that it does not have, ids that it does not know.
pub fn run(command: ModelCommand) -> Result<ExitStatus> {
    let ModelCommand::Inspect(args) = command;
    let checkpoint = Checkpoint::open(&args.folder)?;
    checkpoint.check(&model_specs(checkpoint.architecture()))?;
    let tokenizer = checkpoint.tokenizer().map(|file| read_tokenizer(&file)).transpose()?;
    let mut inspection = inspect(&checkpoint, tokenizer.as_ref(), args.cut)?;
    if !args.ids.is_empty() {
        inspection.logits = Some(logits(checkpoint, &args.ids)?);
    }
    if args.json {
        print_json(&inspection)?;
    } else {
        print(&render(&inspection, tokenizer.as_ref()))?;
    }
    Ok(ExitStatus::Success)
}

fn inspect(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Tokenizer>,
    cut: Option<CutArg>,
) -> Result<Inspection> {
    let architecture = checkpoint.architecture().clone();
    let special = checkpoint.special_tokens();
    let (tied, rope, positions, windows) = match &architecture.blocks {
        BlockKind::Decoder(decoder) => {
            let rope = format!("theta {}, scaling {:?}", decoder.rope.theta, decoder.rope.scaling);
            (Some(decoder.tied), Some(rope), None, None)
        }
        BlockKind::Encoder(encoder) => {
            (None, None, Some(encoder.longest()), encoder.windows.clone())
        }
    };
    let specs = model_specs(&architecture);
    Ok(Inspection {
        folder: checkpoint.folder().to_owned(),
        family: checkpoint.family().to_string(),
        dtypes: checkpoint.dtypes(),
        hidden: architecture.hidden,
        layers: architecture.layers,
        heads: architecture.heads,
        kv_heads: architecture.kv_heads,
        head_dim: architecture.head_dim,
        ffn: architecture.ffn,
        vocab: architecture.vocab,
        tied,
        rope,
        positions,
        windows,
        tokenizer_tokens: tokenizer.map(|tokenizer| tokenizer.get_vocab_size(true)),
        bos: special.bos,
        eos: special.eos,
        pad: special.pad,
        parameters: specs.iter().map(TensorSpec::numel).sum(),
        cuts: cuts(checkpoint, cut)?,
        logits: None,
    })
}

/// The given cut, or all symmetric ones that leave a body, as far as there are enough blocks.
fn cuts(checkpoint: &Checkpoint, cut: Option<CutArg>) -> Result<Vec<Holdings>> {
    let layers = checkpoint.architecture().layers;
    let cuts = match cut {
        Some(cut) => {
            let fits = cut.front >= 1 && cut.back >= 0 && cut.front + cut.back <= layers;
            if !fits {
                let expected = format!("at least 1 block at the front and at most {layers} in all");
                return Err(WrongUsage { argument: "--cut", got: cut.to_string(), expected }.into());
            }
            vec![cut]
        }
        None if layers < 3 => vec![CutArg { front: 1, back: 0 }],
        None => (1..=(layers - 1) / 2).map(|k| CutArg { front: k, back: k }).collect(),
    };
    Ok(cuts.into_iter().map(|cut| holdings(checkpoint, cut)).collect())
}

fn holdings(checkpoint: &Checkpoint, cut: CutArg) -> Holdings {
    let architecture = checkpoint.architecture();
    let ends = text_ends(architecture);
    let CutArg { front, back } = cut;
    let cut = Cut::new(architecture.layers, &SplitConfig::new(front, back));
    let stages = cut.stages().len();
    let none = LoraConfig::none();
    let layout = Layout::new(architecture, Trainable::Lora, &none, cut, ends.as_ref());
    let at = |place| {
        let specs = layout.base(place);
        let bytes = specs.iter().filter_map(|spec| {
            let kind = checkpoint.stored_kind(&spec.name)?;
            Some(spec.numel() as u64 * kind.elt_size_in_bytes() as u64)
        });
        (specs.iter().map(TensorSpec::numel).sum::<i64>(), bytes.sum::<u64>())
    };
    let (in_front, front_bytes) = at(Place::Front);
    let (in_back, back_bytes) = at(Place::Back);
    // At most one stage: these cuts name none.
    let (body, body_bytes) = if stages > 0 { at(Place::Stage(0)) } else { (0, 0) };
    Holdings {
        cut: format!("{front}/{back}"),
        front: in_front,
        body,
        back: in_back,
        front_bytes,
        body_bytes,
        back_bytes,
    }
}

/// Logits `[V]` of the token after `ids`, in f32.
fn logits(checkpoint: Checkpoint, ids: &[i64]) -> Result<Vec<f32>> {
    let architecture = checkpoint.architecture().clone();
    if let BlockKind::Encoder(_) = architecture.blocks {
        let got = format!("an encoder ({})", checkpoint.family());
        let expected = "a causal model: others have no logits".to_owned();
        return Err(WrongUsage { argument: "--ids", got, expected }.into());
    }
    let vocab = architecture.vocab;
    if let Some(id) = ids.iter().find(|id| !(0..vocab).contains(*id)) {
        let (got, expected) = (id.to_string(), format!("ids from 0 to {}", vocab - 1));
        return Err(WrongUsage { argument: "--ids", got, expected }.into());
    }
    let config = Loaded::load(&Layers::default()).context("the defaults")?.config;
    let plan = WholePlan {
        architecture: &architecture,
        trainable: Trainable::Lora,
        lora: LoraConfig::none(),
        optimizer: &config.optimizer,
        settings: ClientSettings::of(&config),
        longest: ids.len() as i64,
    };
    let model = plan.build(&StartingPoint::pretrained(0, std::sync::Arc::new(checkpoint)))?;
    Ok(Vec::try_from(model.next_token_scores(ids)?)?)
}

fn render(inspection: &Inspection, tokenizer: Option<&Tokenizer>) -> String {
    let mut facts = table(["what", "value"]);
    let numbers = |value: i64| format!("{:.2} M", value as f64 / 1e6);
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    let id = |id: Option<i64>| id.map_or("none".to_owned(), |id| id.to_string());
    let dtypes: Vec<&str> = inspection.dtypes.keys().map(String::as_str).collect();
    let mut row = |what: &str, value: String| {
        facts.add_row([what, &value]);
    };
    row("family", inspection.family.clone());
    row("parameters", format!("{}, {}", numbers(inspection.parameters), dtypes.join(", ")));
    row("hidden, layers", format!("{}, {}", inspection.hidden, inspection.layers));
    row(
        "heads",
        format!(
            "{} of width {}, {} for keys and values",
            inspection.heads, inspection.head_dim, inspection.kv_heads
        ),
    );
    row("feed-forward", inspection.ffn.to_string());
    if let Some(rope) = &inspection.rope {
        row("rotary positions", rope.clone());
    }
    if let Some(tied) = inspection.tied {
        row("head", if tied { "the embedding" } else { "its own" }.to_owned());
    }
    if let Some(positions) = inspection.positions {
        row("longest text", format!("{positions} tokens"));
    }
    let known = inspection
        .tokenizer_tokens
        .map_or("no tokenizer.json".to_owned(), |tokens| format!("tokenizer.json knows {tokens}"));
    row("vocabulary", format!("{}, {known}", inspection.vocab));
    row(
        "special tokens",
        format!(
            "begin {}, end {:?}, padding {}",
            id(inspection.bos),
            inspection.eos,
            id(inspection.pad)
        ),
    );
    let mut cuts = table(["cut", "front", "body (shards)", "back", "client holds"]);
    for held in &inspection.cuts {
        let Holdings { front, body, back, .. } = *held;
        let share = (front + back) as f64 / (front + body + back).max(1) as f64;
        let place = |count, bytes| format!("{}, {}", numbers(count), mib(bytes));
        cuts.add_row([
            held.cut.clone(),
            place(front, held.front_bytes),
            place(body, held.body_bytes),
            place(back, held.back_bytes),
            format!("{:.0} %", share * 100.0),
        ]);
    }
    let mut text = format!("{facts}\n\n{cuts}");
    if let Some(logits) = &inspection.logits {
        text.push_str(&format!("\n\n{}", top(logits, tokenizer)));
    }
    text
}

/// The likeliest next tokens.
fn top(logits: &[f32], tokenizer: Option<&Tokenizer>) -> String {
    let logits = Tensor::from_slice(logits);
    let (values, ids) = logits.topk(TOP.min(logits.numel() as i64), 0, true, true);
    let probabilities = logits.softmax(0, tch::Kind::Float);
    let mut rows = table(["id", "token", "logit", "probability"]);
    for place in 0..ids.numel() as i64 {
        let id = ids.int64_value(&[place]);
        let token = tokenizer.and_then(|tokenizer| tokenizer.id_to_token(id as u32));
        rows.add_row([
            id.to_string(),
            token.unwrap_or_default(),
            format!("{:.4}", values.double_value(&[place])),
            format!("{:.4}", probabilities.double_value(&[id])),
        ]);
    }
    rows.to_string()
}
