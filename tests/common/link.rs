//! A client's way to stages of its own thread: no actors, no mailboxes.

use fellrec::generation::{BeamSearch, GenerationPlan, Hypothesis};
use fellrec::ids::{ClientId, StepId};
use fellrec::model::backbone::Inputs;
use fellrec::split::{
    BodyGradient, BodySession, ClientModel, DecodePool, DecodeTurn, HiddenStates, SplitError,
    StepPlan,
};
use fellrec::training::{BodyLink, Timed};
use tch::{Kind, Tensor, no_grad};

/// Stages with their decode caches.
pub struct LocalLink {
    pub stages: Vec<BodySession>,
    pub pools: Vec<DecodePool>,
    /// Turns of decodings that were asked for.
    pub turns: u64,
    /// Drops a stage's cache before these turns, as another client's decoding would.
    pub evict_at: Vec<u64>,
}

impl LocalLink {
    pub fn new(stages: Vec<BodySession>) -> Self {
        let pools = stages.iter().map(|_| DecodePool::new(u64::MAX)).collect();
        Self { stages, pools, turns: 0, evict_at: Vec::new() }
    }
}

fn timed<T>(value: T) -> Timed<T> {
    Timed { value, seconds: 0.0 }
}

impl BodyLink for LocalLink {
    type Error = SplitError;
    type Permit = ();

    async fn permit(&mut self) -> Result<(), SplitError> {
        Ok(())
    }

    async fn forward(
        &mut self,
        stage: usize,
        step: StepId,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, SplitError> {
        self.stages[stage].forward(step, &hidden).map(timed)
    }

    async fn backward(
        &mut self,
        stage: usize,
        step: StepId,
        grad: HiddenStates,
    ) -> Result<Timed<BodyGradient>, SplitError> {
        self.stages[stage].backward(step, &grad).map(timed)
    }

    async fn step(
        &mut self,
        stage: usize,
        step: StepId,
        plan: StepPlan,
    ) -> Result<Timed<()>, SplitError> {
        self.stages[stage].step(step, plan).map(timed)
    }

    async fn evaluate(
        &mut self,
        stage: usize,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, SplitError> {
        self.stages[stage].evaluate(&hidden).map(timed)
    }

    async fn decode(
        &mut self,
        stage: usize,
        turn: DecodeTurn,
        hidden: HiddenStates,
    ) -> Result<Option<Timed<HiddenStates>>, SplitError> {
        let client = ClientId(0);
        if self.evict_at.contains(&self.turns) {
            self.pools[stage].drop_client(client);
        }
        self.turns += 1;
        let session = &self.stages[stage];
        let run = |held: &mut _| session.decode(held, &turn, &hidden);
        Ok(self.pools[stage].turn(client, run)?.map(timed))
    }

    fn progress(&mut self, _step: StepId, _of: u64) {}
}

/// What `fellrec::generation::generate` writes, with every text run anew at every step: no caches
/// anywhere, one prompt at a time.
pub async fn without_caches(
    model: &ClientModel,
    link: &mut LocalLink,
    prompts: &[Vec<u32>],
    plan: &GenerationPlan,
) -> Result<Vec<Vec<Hypothesis>>, SplitError> {
    let mut found = Vec::new();
    for prompt in prompts {
        let mut search = BeamSearch::new(1, &plan.end, &plan.search);
        let mut texts = vec![prompt.clone()];
        loop {
            let width = texts[0].len() as i64;
            let ids: Vec<i64> = texts.iter().flatten().map(|id| i64::from(*id)).collect();
            let ids_bt = Tensor::from_slice(&ids).view([-1, width]);
            let ends = no_grad(|| model.ends());
            let mut hidden = model.evaluate_front(&ends, &Inputs::Ids(ids_bt));
            for stage in 0..plan.stages {
                hidden = link.evaluate(stage, hidden).await?.value;
            }
            let rows = Tensor::arange(texts.len() as i64, (Kind::Int64, plan.device));
            let last = (rows + 1) * width - 1;
            let scores = model.evaluate_back(&ends, &hidden, &last)?;
            let Some(step) = search.advance(&scores.log_softmax(-1, Kind::Float)) else { break };
            let text = |(parent, token): (&i64, &i64)| {
                [&texts[*parent as usize][..], &[*token as u32]].concat()
            };
            texts = step.parents.iter().zip(&step.tokens).map(text).collect();
        }
        found.extend(search.finish());
    }
    Ok(found)
}
