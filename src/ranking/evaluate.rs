//! Ranks a client's users through the split model.

use tch::{Device, Tensor, no_grad};

use super::{HistoryInputs, MetricSums, SampledProtocol, UserRanks, ranks, sampled_ranks};
use crate::data::Query;
use crate::split::ClientModel;
use crate::training::BodyLink;

/// How users are ranked.
#[derive(Clone, Debug)]
pub struct RankingPlan {
    /// Cut-offs.
    pub ks: Vec<u32>,
    /// Users ranked at once.
    pub batch: usize,
    /// Stages of the body.
    pub stages: usize,
    /// Where the client computes.
    pub device: Device,
    /// Seed of the run; draws the sampled negatives.
    pub run_seed: u64,
    /// Negatives to rank against as well.
    pub sampled: Option<SampledProtocol>,
}

/// Sums over the ranked users, and what they are sums of.
#[derive(Clone, Debug)]
pub struct RankingSums {
    /// Over the full catalogue, known items masked.
    pub full: MetricSums,
    /// Against sampled negatives.
    pub sampled: Option<MetricSums>,
    /// Ranks over the full catalogue, in the order of the queries. They stay with the client.
    pub users: Vec<UserRanks>,
}

/// Ranks the targets of every query over the full catalogue, the user's known history masked.
///
/// Users of similar history length are ranked together; sums are taken in the order of `queries`.
pub async fn rank_users<L: BodyLink>(
    model: &ClientModel,
    link: &mut L,
    queries: &[Query<'_>],
    inputs: &HistoryInputs,
    plan: &RankingPlan,
) -> Result<RankingSums, L::Error> {
    let ends = no_grad(|| model.ends());
    let mut order: Vec<usize> = (0..queries.len()).collect();
    order.sort_by_key(|row| inputs.length(&queries[*row].known));
    let mut collector = RankCollector::new(queries, plan);
    for rows in order.chunks(plan.batch) {
        let _permit = link.permit().await?;
        let histories: Vec<_> = rows.iter().map(|row| queries[*row].known.as_slice()).collect();
        let (entering, scored_b) = inputs.batch(&histories, plan.device);
        let mut hidden = model.evaluate_front(&ends, &entering);
        for stage in 0..plan.stages {
            hidden = link.evaluate(stage, hidden).await?.value;
        }
        collector.add(rows, &model.evaluate_back(&ends, &hidden, &scored_b)?);
    }
    Ok(collector.finish())
}

/// Takes in scores batch by batch, in any order of the users, and sums in the order of the queries.
#[derive(Debug)]
pub struct RankCollector<'a> {
    queries: &'a [Query<'a>],
    plan: &'a RankingPlan,
    /// Ranks over the full catalogue and against sampled negatives, by query.
    found: Vec<(Vec<u32>, Vec<u32>)>,
}

impl<'a> RankCollector<'a> {
    /// Nobody is ranked yet.
    pub fn new(queries: &'a [Query<'a>], plan: &'a RankingPlan) -> Self {
        Self { queries, plan, found: vec![Default::default(); queries.len()] }
    }

    /// Scores `[B, V]` of every item, larger is better, for the queries of these numbers.
    pub fn add(&mut self, rows: &[usize], scores_bv: &Tensor) {
        let candidates = scores_bv.size()[1] as usize;
        let mut scores = vec![0f32; rows.len() * candidates];
        scores_bv.contiguous().copy_data(&mut scores, rows.len() * candidates);
        for (row, scores) in rows.iter().zip(scores.chunks(candidates)) {
            self.add_one(*row, scores);
        }
    }

    /// Scores of every item for the query of this number.
    pub fn add_one(&mut self, row: usize, scores: &[f32]) {
        let query = &self.queries[row];
        self.found[row].0 = ranks(scores, &query.known, query.targets);
        if let Some(protocol) = self.plan.sampled {
            self.found[row].1 = sampled_ranks(scores, query, protocol, self.plan.run_seed);
        }
    }

    /// Sums over all queries.
    pub fn finish(self) -> RankingSums {
        let mut full = MetricSums::new(&self.plan.ks);
        let mut sampled = self.plan.sampled.map(|_| MetricSums::new(&self.plan.ks));
        for (full_ranks, sampled_ranks) in &self.found {
            full.add(full_ranks);
            if let Some(sums) = &mut sampled {
                sums.add(sampled_ranks);
            }
        }
        let user = |(query, (ranks, _)): (&Query<'_>, _)| UserRanks { user: query.user, ranks };
        let users = self.queries.iter().zip(self.found).map(user).collect();
        RankingSums { full, sampled, users }
    }
}
