//! A round trip of activations over the link, against a bare request of the same bytes over the same broker.

use std::time::{Duration, Instant};

use actix::Arbiter;
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use fellrec::config::NodesConfig;
use fellrec::federation::round::Attempt;
use fellrec::ids::{ClientId, Round, ShardId, StepId};
use fellrec::split::{HiddenStates, wire};
use fellrec::told::chain;
use fellrec::training::Timed;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use tch::{Device, Kind, Tensor};
use tokio::sync::oneshot;

use crate::link::carried::Carried;
use crate::link::connection::Dial;
use crate::link::inbox::Deliver;
use crate::link::line::Line;
use crate::link::sealing::{SealSecrets, Sealer};
use crate::link::subjects::RunId;
use crate::messages::{ForwardBody, StepDone};
use crate::peer::{Peer, Takes};
use crate::registry::MemberName;

/// Hidden width of the activations.
const WIDTH: i64 = 64;
/// Small messages of one measurement.
const SMALL: usize = 1_000;
/// Longest wait for a round trip.
const DEADLINE: Duration = Duration::from_secs(60);

/// Median times of one size.
#[derive(Clone, Copy, Debug)]
pub struct RoundTrip {
    /// Of the activations, one way.
    pub bytes: u64,
    /// A request with these bytes and an answer with as many, and nothing else.
    pub bare: Duration,
    /// The same, asked for by a thread that computes and made by one that has the connection.
    pub handed_over: Duration,
    /// The same activations from actor to actor and back.
    pub link: Duration,
}

/// How long small messages take to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Half of them.
    pub median: Duration,
    /// 99 of 100.
    pub p99: Duration,
}

/// All that is measured.
#[derive(Clone, Debug)]
pub struct LinkTimes {
    /// By size.
    pub trips: Vec<RoundTrip>,
    /// Small messages with nothing else under way.
    pub alone: Control,
    /// Small messages beside activations of the largest size, one after the other.
    pub beside_bulk: Control,
}

/// Answers a half step with what came: all of the link, and none of the model.
struct Echo;

impl Deliver for Echo {
    fn deliver(
        &self,
        _from: MemberName,
        name: String,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Vec<u8>, String>> {
        Box::pin(async move {
            if name != ForwardBody::NAME {
                return wire::encode(&()).map_err(|e| chain(&e));
            }
            let ForwardBody { hidden, .. } = wire::decode(&frame).map_err(|e| chain(&e))?;
            let answer: Result<Timed<HiddenStates>, fellrec::split::SplitError> =
                Ok(Timed { value: hidden, seconds: 0.0 });
            wire::encode(&answer).map_err(|e| chain(&e))
        })
    }
}

/// A connection on a thread of its own, and nothing of the link.
struct Courier {
    thread: Arbiter,
    client: async_nats::Client,
}

impl Courier {
    async fn start(broker: &str) -> Result<Self> {
        let (thread, broker) = (Arbiter::new(), broker.to_owned());
        let (tell, told) = oneshot::channel();
        thread.spawn(async move {
            // The measuring end notices.
            let _ = tell.send(async_nats::connect(broker).await);
        });
        let client = told.await?.context("no broker")?;
        Ok(Self { thread, client })
    }

    async fn request(&self, payload: Bytes) -> Result<()> {
        let (client, (tell, told)) = (self.client.clone(), oneshot::channel());
        self.thread.spawn(async move {
            let _ = tell.send(client.request("bare", payload).await);
        });
        told.await?.map_err(|error| anyhow!(error))?;
        Ok(())
    }
}

/// Measures round trips of these sizes, `repeats` times each, in turn; to be called within an actix system.
/// The broker must let messages of the largest size through.
///
/// # Errors
/// No broker, or no answer.
pub async fn link_times(
    broker: &str,
    nodes: &NodesConfig,
    sizes: &[u64],
    repeats: usize,
    seal: bool,
) -> Result<LinkTimes> {
    let (client, shard) =
        (MemberName::Client(ClientId(0)), MemberName::Shard(ShardId { stage: 0, replica: 0 }));
    let dial = |member| Dial {
        broker: broker.to_owned(),
        member,
        tls: None,
        patience: Duration::from_secs(10),
    };
    let secrets = if seal { Some(SealSecrets::generate()?) } else { None };
    let run: RunId = "bench".parse()?;
    let sealer = |member| {
        let keys = secrets.as_ref()?.keys_of(member);
        Some(Sealer::new(member, run.clone(), keys))
    };
    let server = Line::dial(dial(shard), run.clone(), sealer(shard), 1, nodes).await?;
    server.serve(|| Echo).await?;
    let line = Line::dial(dial(client), run.clone(), sealer(client), 1, nodes).await?;
    let peer = Peer::<ForwardBody>::new(shard, line.stand_in(shard).recipient(), DEADLINE);

    let bare = async_nats::connect(broker).await.context("no broker")?;
    let courier = Courier::start(broker).await?;
    let echo = async_nats::connect(broker).await.context("no broker")?;
    let mut asked = echo.subscribe("bare").await?;
    echo.flush().await?;
    let thread = Arbiter::new();
    thread.spawn(async move {
        while let Some(message) = asked.next().await {
            if let Some(reply) = message.reply {
                // The measuring end notices what does not come.
                let _ = echo.publish(reply, message.payload).await;
            }
        }
    });

    let mut trips = Vec::new();
    for bytes in sizes.iter().copied() {
        let positions = bytes as i64 / (4 * WIDTH);
        let hidden_btd = Tensor::rand([1, positions, WIDTH], (Kind::Float, Device::Cpu));
        let payload = Bytes::from(vec![1; bytes as usize]);
        let (mut bare_times, mut handed_times, mut link_times) =
            (Vec::new(), Vec::new(), Vec::new());
        for repeat in 0..=repeats {
            let started = Instant::now();
            bare.request("bare", payload.clone()).await.map_err(|error| anyhow!(error))?;
            let bare_time = started.elapsed();
            let started = Instant::now();
            courier.request(payload.clone()).await?;
            let handed_time = started.elapsed();
            let step = StepId { round: Round(0), step: repeat as u64 };
            let hidden = HiddenStates::new(&hidden_btd);
            let started = Instant::now();
            let answer = peer.ask(ForwardBody { client: ClientId(0), step, hidden }).await?;
            let link_time = started.elapsed();
            anyhow::ensure!(answer?.value.bytes() == bytes, "another tensor came back");
            // The first of each size warms up.
            if repeat > 0 {
                bare_times.push(bare_time);
                handed_times.push(handed_time);
                link_times.push(link_time);
            }
        }
        trips.push(RoundTrip {
            bytes,
            bare: median(bare_times),
            handed_over: median(handed_times),
            link: median(link_times),
        });
    }
    let small = Peer::<StepDone>::new(shard, line.stand_in(shard).recipient(), DEADLINE);
    let alone = control(&small).await?;
    let largest = sizes.iter().copied().max().unwrap_or_default();
    let positions = largest as i64 / (4 * WIDTH);
    let hidden_btd = Tensor::rand([1, positions, WIDTH], (Kind::Float, Device::Cpu));
    let bulk = actix::spawn(async move {
        for step in 0.. {
            let step = StepId { round: Round(1), step };
            let hidden = HiddenStates::new(&hidden_btd);
            if peer.ask(ForwardBody { client: ClientId(0), step, hidden }).await.is_err() {
                break;
            }
        }
    });
    let beside_bulk = control(&small).await?;
    anyhow::ensure!(!bulk.is_finished(), "the activations were not answered");
    bulk.abort();
    thread.stop();
    courier.thread.stop();
    line.close();
    server.close();
    Ok(LinkTimes { trips, alone, beside_bulk })
}

/// Small messages, one after the other.
async fn control(peer: &Peer<StepDone>) -> Result<Control> {
    let attempt = Attempt { round: Round(0), attempt: 0 };
    let mut times = Vec::with_capacity(SMALL);
    for done in 0..SMALL as u64 {
        let started = Instant::now();
        peer.ask(StepDone { attempt, client: ClientId(0), done, of: SMALL as u64 }).await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(Control { median: times[SMALL / 2], p99: times[SMALL * 99 / 100] })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
