//! One role of the split, ready to make steps.

use std::sync::Arc;

use anyhow::Result;
use fellrec::config::OptimizerConfig;
use fellrec::ids::{ClientId, Round, StepId};
use fellrec::model::backbone::{Backbone, Batch, Inputs};
use fellrec::model::causal_lm::CausalLm;
use fellrec::model::cut::Place;
use fellrec::model::layout::Layout;
use fellrec::model::mask::MaskSeed;
use fellrec::model::rope::RopeTable;
use fellrec::model::spec::BaseWeights;
use fellrec::model::start::StartingPoint;
use fellrec::split::{
    BodySession, ClientModel, ClientSettings, FrameLimits, HalfStep, HiddenStates, Stage, StepPlan,
};
use fellrec::training::{AdamW, TrainablePart};
use tch::{Device, Kind, Tensor};

use super::{Role, SEED, StepBench, config};

const PLAN: StepPlan = StepPlan { learning_rate: 1e-4, grad_scale: 1.0 };

/// The parts that a step runs through.
pub struct Party {
    client: Option<ClientModel>,
    /// Sessions of several clients, whose passes are computed as one.
    bodies: Option<(Stage, Vec<BodySession>)>,
    batch: Batch,
    /// Stands for the other side's frames.
    frame: HiddenStates,
}

impl Party {
    /// The role's part of the model, with a batch of random tokens.
    ///
    /// # Errors
    /// A tensor of the checkpoint could not be read.
    pub fn new(
        bench: &StepBench,
        layout: &Layout,
        base: BaseWeights,
        start: &StartingPoint,
        kind: Kind,
        device: Device,
    ) -> Result<Self> {
        let config = config()?;
        let architecture = &layout.architecture;
        let rope = RopeTable::of(architecture, bench.seq, kind, device);
        let optimizer: &OptimizerConfig = &config.optimizer;
        let part = |place| {
            let slice = layout.initial_slice(place, start)?;
            Ok::<_, anyhow::Error>(TrainablePart::new(&slice, AdamW::new(optimizer), device))
        };
        let recompute = bench.recompute;
        let bodies = match bench.role {
            Role::Shard => {
                let place = Place::Stage(0);
                let stage = Stage {
                    layout: Arc::new(layout.clone()),
                    place,
                    base: base.share(),
                    rope: rope.share(),
                    limits: FrameLimits {
                        width: architecture.hidden,
                        kind,
                        rows: bench.batch,
                        positions: bench.seq,
                    },
                    run_seed: SEED,
                    recompute,
                };
                let session = |client| Ok(BodySession::new(&stage, ClientId(client), part(place)?));
                let sessions = (0..bench.clients).map(session).collect::<Result<Vec<_>>>()?;
                Some((stage, sessions))
            }
            Role::Client | Role::Whole => None,
        };
        let client = match bench.role {
            Role::Shard => None,
            Role::Client | Role::Whole => {
                let ends: Box<dyn Backbone> = Box::new(CausalLm::new(architecture));
                let settings = ClientSettings { recompute, ..ClientSettings::of(&config) };
                let (front, back) = (part(Place::Front)?, part(Place::Back)?);
                Some(ClientModel::new(ends, layout, base, &rope, settings, front, back))
            }
        };
        let size = [bench.batch, bench.seq];
        let ids_bt = Tensor::randint(architecture.vocab, size, (Kind::Int64, device));
        let labels_m =
            Tensor::randint(architecture.vocab, [size[0] * size[1]], (Kind::Int64, device));
        let frame_btd = Tensor::randn([size[0], size[1], architecture.hidden], (kind, device));
        Ok(Self {
            client,
            bodies,
            batch: Batch {
                rows_m: Tensor::arange(size[0] * size[1], (Kind::Int64, device)),
                labels_m,
                inputs: Inputs::Ids(ids_bt),
            },
            frame: HiddenStates::new(&frame_btd),
        })
    }

    /// One optimiser step; the loss in nats a token, where the role computes one.
    pub fn step(&mut self, step: u64, role: Role) -> Result<Option<f64>> {
        let id = StepId { round: Round(0), step };
        if let Some((stage, sessions)) = &mut self.bodies {
            let hidden = &self.frame;
            let half = |session| HalfStep { session, step: id, hidden };
            let mut asked: Vec<HalfStep<'_>> = sessions.iter_mut().map(half).collect();
            stage.forward_each(&mut asked).into_iter().collect::<Result<Vec<_>, _>>()?;
            stage.backward_each(&mut asked).into_iter().collect::<Result<Vec<_>, _>>()?;
            sessions.iter_mut().try_for_each(|session| session.step(id, PLAN))?;
            return Ok(None);
        }
        let Some(client) = &mut self.client else { return Ok(None) };
        let masks = MaskSeed { run_seed: SEED, client: ClientId(0), step: id };
        let (hidden, pending) = client.forward_front(&self.batch, masks);
        let from_body = if role == Role::Whole { hidden } else { self.frame.share() };
        let back = client.run_back(&pending, &from_body, &self.batch)?;
        let loss = back.loss_sum / self.batch.labels() as f64;
        // A gradient as large as a real one, whoever it is from.
        let gradient = if role == Role::Whole { back.hidden } else { self.frame.share() };
        client.backward_front(pending, &gradient)?;
        let _norms = client.squared_grad_norms();
        client.step(PLAN);
        Ok(Some(loss))
    }
}
