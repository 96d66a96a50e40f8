//! The same steps without split and without actors: one graph a step, a plain loop a thread.

use std::sync::Arc;
use std::time::Instant;

use fellrec::blueprint::Blueprint;
use fellrec::checkpoint::PartState;
use fellrec::ids::{ClientId, Round, StepId};
use fellrec::model::cut::Place;
use fellrec::model::mask::MaskSeed;
use fellrec::model::pass::BlockInputs;
use fellrec::model::pretrained::PretrainedError;
use fellrec::model::spec::Params;
use fellrec::seed;
use fellrec::split::{BlockStack, ClientModel, ClientSettings, StepPlan};
use fellrec::training::{Examples, TrainablePart, clip_scale, learning_rate};

/// All clients' whole models, dealt out to threads.
pub struct PlainLoop {
    blueprint: Arc<Blueprint>,
    lanes: Vec<Vec<WholeClient>>,
}

struct WholeClient {
    id: ClientId,
    model: ClientModel,
    bodies: Vec<(TrainablePart, BlockStack)>,
    examples: Box<dyn Examples>,
}

impl PlainLoop {
    /// Builds every client's model on the CPU.
    pub fn new(blueprint: &Arc<Blueprint>, threads: u32) -> Result<Self, PretrainedError> {
        let mut lanes: Vec<Vec<WholeClient>> = (0..threads).map(|_| Vec::new()).collect();
        let device = blueprint.client_device();
        let base = blueprint.base(&blueprint.layout.cut.places(), device)?;
        let rope = blueprint.rope(device);
        let backbone = blueprint.backbone(device);
        let config = &blueprint.config;
        let part = |place| {
            let slice = blueprint.layout.initial_slice(place, &blueprint.start)?;
            let start = slice.share();
            let part = PartState::fresh(slice, &config.optimizer).into_trainable(device);
            Ok::<_, PretrainedError>(part.anchored(&start, config.training.proximal_mu))
        };
        for (index, id) in blueprint.clients().into_iter().enumerate() {
            let layout = &blueprint.layout;
            let body = |stage| {
                let place = Place::Stage(stage);
                let part = part(place)?;
                let trainable = part.by_name();
                let params = Params { base: &base, trainable: &[&trainable] };
                let blocks = layout.cut.blocks(place);
                let recompute = config.runtime.recompute;
                let stack = BlockStack::new(&params, layout, blocks, &rope, recompute);
                Ok::<_, PretrainedError>((part, stack))
            };
            let bodies = (0..layout.cut.stages().len()).map(body).collect::<Result<_, _>>()?;
            let model = ClientModel::new(
                backbone.share(),
                layout,
                base.share(),
                &rope,
                ClientSettings::of(config),
                part(Place::Front)?,
                part(Place::Back)?,
            );
            let examples = blueprint.examples(id);
            lanes[index % threads as usize].push(WholeClient { id, model, bodies, examples });
        }
        Ok(Self { blueprint: Arc::clone(blueprint), lanes })
    }

    /// Trains every client for one round's steps; returns the wall time in seconds.
    pub fn run(&mut self) -> f64 {
        let started = Instant::now();
        let blueprint = &self.blueprint;
        std::thread::scope(|scope| {
            for lane in &mut self.lanes {
                scope.spawn(|| {
                    tch::set_num_threads(1);
                    lane.iter_mut().for_each(|client| client.train(blueprint));
                });
            }
        });
        started.elapsed().as_secs_f64()
    }
}

impl WholeClient {
    fn train(&mut self, blueprint: &Blueprint) {
        let config = &blueprint.config;
        let device = blueprint.client_device();
        let mut rng = seed::rng(config.run.seed, "plain loop", &[u64::from(self.id.0)]);
        let batches = self.examples.epoch(config.training.batch.get() as usize, &mut rng);
        for (step, rows) in batches.iter().enumerate() {
            let batch = self.examples.batch(rows, &mut rng, device);
            let step = StepId { round: Round(0), step: step as u64 };
            let masks = MaskSeed { run_seed: config.run.seed, client: self.id, step };
            let bodies = &self.bodies;
            self.model.unsplit_step(&batch, masks, |hidden| {
                let inputs = BlockInputs { masks: Some(&masks), lengths_b: None };
                bodies.iter().fold(hidden, |hidden, (_, stack)| stack.run(&hidden, inputs))
            });
            self.bodies.iter().for_each(|(part, _)| part.close_gradients());
            let (front, back) = self.model.squared_grad_norms();
            let body: f64 = self.bodies.iter().map(|(part, _)| part.squared_grad_norm()).sum();
            let plan = StepPlan {
                learning_rate: learning_rate(&config.optimizer, self.model.steps()),
                grad_scale: clip_scale(front + body + back, config.optimizer.clip_norm.get()),
            };
            self.model.step(plan);
            self.bodies.iter_mut().for_each(|(part, _)| part.step(plan));
        }
    }
}
