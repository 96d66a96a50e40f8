//! `fellrec bench link`: round trips of activations against bare requests over the same broker.

use std::fs::File;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use fellrec::config::{Layers, Loaded};
use serde::Serialize;

use crate::bench::{Control, LinkTimes, link_times};
use crate::cli::ExitStatus;
use crate::cli::output::{print, print_json};

const EXAMPLES: &str = "\
Examples:
  fellrec bench link --nats-server \"$(scripts/nats.sh)\"
  fellrec bench link --nats-server \"$(scripts/nats.sh)\" --sizes 1024 --set nodes.chunk_kib=1024

The bare request sends the size as one message, which the broker of a federation would not take. Handed over: the same
asked for by another thread than the connection's, as by an actor that computes.";

/// Sizes that are measured.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LinkArgs {
    /// Sizes of the activations. Unit: KiB
    #[arg(long, value_name = "KIB", value_delimiter = ',', default_values_t = [64, 1024, 8192, 32768])]
    pub sizes: Vec<u64>,
    /// Round trips of each size, after one that is not counted
    #[arg(long, default_value = "21")]
    pub repeats: NonZeroU32,
    /// Sets one key, of section nodes
    #[arg(short, long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// The broker's binary
    #[arg(long, value_name = "FILE", env = "FELLREC_NATS_SERVER", default_value = "nats-server")]
    pub nats_server: PathBuf,
    /// Seals the activations, as a federation's kits do
    #[arg(long)]
    pub seal: bool,
    /// Writes JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Row {
    bytes: u64,
    bare_secs: f64,
    handed_over_secs: f64,
    link_secs: f64,
    ratio: f64,
    ratio_to_handed_over: f64,
}

#[derive(Serialize)]
struct Small {
    when: &'static str,
    median_secs: f64,
    p99_secs: f64,
}

#[derive(Serialize)]
struct Times {
    round_trips: Vec<Row>,
    control: [Small; 2],
}

/// Measures.
///
/// # Errors
/// No broker, or a round trip that failed.
pub fn run(args: &LinkArgs) -> Result<ExitStatus> {
    let config = Loaded::load(&Layers { sets: args.set.clone(), ..Layers::default() })?.config;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let conf = folder.path().join("nats.conf");
    std::fs::write(
        &conf,
        format!("host: 127.0.0.1\nport: {port}\nmax_payload: 64MB\nmax_pending: 256MB\n"),
    )?;
    let _broker = Broker::start(args, &conf, folder.path().join("broker.log"))?;
    let sizes: Vec<u64> = args.sizes.iter().map(|kib| kib << 10).collect();
    let broker = format!("127.0.0.1:{port}");
    let times = actix::System::new().block_on(async {
        // The line waits for its broker.
        link_times(&broker, &config.nodes, &sizes, args.repeats.get() as usize, args.seal).await
    })?;
    let LinkTimes { trips, alone, beside_bulk } = times;
    let rows = trips.iter().map(|trip| Row {
        bytes: trip.bytes,
        bare_secs: trip.bare.as_secs_f64(),
        handed_over_secs: trip.handed_over.as_secs_f64(),
        link_secs: trip.link.as_secs_f64(),
        ratio: trip.link.as_secs_f64() / trip.bare.as_secs_f64(),
        ratio_to_handed_over: trip.link.as_secs_f64() / trip.handed_over.as_secs_f64(),
    });
    let rows: Vec<Row> = rows.collect();
    let small = [("alone", alone), ("beside activations", beside_bulk)];
    if args.json {
        let small = small.map(|(when, control)| Small {
            when,
            median_secs: control.median.as_secs_f64(),
            p99_secs: control.p99.as_secs_f64(),
        });
        print_json(&Times { round_trips: rows, control: small })?;
        return Ok(ExitStatus::Success);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "KIB EACH WAY",
        "BARE REQUEST",
        "HANDED OVER",
        "OVER THE LINK",
        "TO BARE",
        "TO HANDED OVER",
    ]);
    let ms = |seconds: f64| format!("{:.2} ms", 1e3 * seconds);
    for row in &rows {
        let kib = (row.bytes >> 10).to_string();
        table.add_row([
            kib,
            ms(row.bare_secs),
            ms(row.handed_over_secs),
            ms(row.link_secs),
            format!("{:.2}", row.ratio),
            format!("{:.2}", row.ratio_to_handed_over),
        ]);
    }
    let mut text = table.to_string();
    for (when, Control { median, p99 }) in small {
        let (median, p99) = (ms(median.as_secs_f64()), ms(p99.as_secs_f64()));
        text.push_str(&format!("\ncontrol messages {when}: median {median}, p99 {p99}"));
    }
    print(&text)?;
    Ok(ExitStatus::Success)
}

/// A broker that ends with the measurement.
struct Broker(Child);

impl Broker {
    fn start(args: &LinkArgs, conf: &std::path::Path, log: PathBuf) -> Result<Self> {
        let log =
            File::create(&log).with_context(|| format!("failed to write {}", log.display()))?;
        let child = Command::new(&args.nats_server)
            .arg("-c")
            .arg(conf)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!(
                    "failed to start {}; `scripts/nats.sh` brings a broker, --nats-server names it",
                    args.nats_server.display()
                )
            })?;
        std::thread::sleep(Duration::from_millis(200));
        Ok(Self(child))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
