//! A client's evaluations: its users ranked by scores, or by the titles that the model writes for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use fellrec::data::{ClientData, Part, Prompts, Query};
use fellrec::federation::member::{Opening, Purpose};
use fellrec::federation::round::{StateId, TabledState};
use fellrec::federation::track::Track;
use fellrec::generation::GenerationPlan;
use fellrec::history::{SampledResult, TestResult};
use fellrec::ranking::{
    Grounding, HistoryInputs, Metrics, Popularity, PopularityWeights, RankingPlan, RankingSums,
    SampledProtocol, embed_titles, rank_users, write_titles,
};
use fellrec::seed;
use rand::seq::index;
use tch::Tensor;

use super::desk::{ClientError, Desk};
use super::link::{Line, ShardLink};
use super::ranks::keep_ranks;
use crate::messages::CloseSession;
use crate::supervisor::SELECTION_K;

impl Desk {
    /// Metrics on validation rows; `None` without any.
    pub(super) async fn validate(
        &mut self,
        state: TabledState,
    ) -> Result<Option<Metrics>, ClientError> {
        let Some(data) = self.data.clone() else { return Ok(None) };
        Ok(self.rank(&data, Part::Validation, state).await?.full.means())
    }

    /// Popularity, start and `best` on test rows; `None` without any.
    pub(super) async fn test(
        &mut self,
        best: TabledState,
    ) -> Result<Option<TestResult>, ClientError> {
        let Some(data) = self.data.clone() else { return Ok(None) };
        let start = TabledState { state: StateId::START, table: None };
        let before = self.rank(&data, Part::Test, start).await?;
        let after = self.rank(&data, Part::Test, best).await?;
        keep_ranks(&self.seat, &after.users)?;
        let ks = cut_offs(&self.seat.blueprint.config.evaluation.ks);
        let popularity = self.popularity(&data).evaluate(&data.users, Part::Test, &ks);
        let (Some(popularity), Some(before), Some(after_metrics)) =
            (popularity.means(), before.full.means(), after.full.means())
        else {
            return Ok(None);
        };
        let sampled = after.sampled.and_then(|sums| sums.means()).map(|metrics| SampledResult {
            protocol: self.sampled_protocol().map(|p| p.to_string()).unwrap_or_default(),
            metrics,
        });
        let (after, best_round) = (after_metrics, best.state.round);
        let best_source = best.state.source;
        Ok(Some(TestResult { popularity, before, after, best_round, best_source, sampled }))
    }

    async fn rank(
        &mut self,
        data: &ClientData,
        part: Part,
        state: TabledState,
    ) -> Result<RankingSums, ClientError> {
        let queries = self.queries(data, part);
        let blueprint = &self.seat.blueprint;
        match (blueprint.prompts().map(Arc::clone), blueprint.inputs()) {
            (Some(prompts), _) => {
                self.rank_written(data, part, &queries, state.state, &prompts).await
            }
            (None, Some(inputs)) => self.rank_scored(&queries, state, &inputs).await,
            (None, None) => unreachable!("random tokens have no users"),
        }
    }

    /// By the scores of the back.
    async fn rank_scored(
        &mut self,
        queries: &[Query<'_>],
        state: TabledState,
        inputs: &HistoryInputs,
    ) -> Result<RankingSums, ClientError> {
        let plan = self.ranking_plan();
        let mut losses = 0;
        loop {
            let ranked = async {
                let candidates = self.ranking_table(state).await?;
                let (opening, mut link) = self.open_ranking(Purpose::Ranking, state.state).await?;
                let mut model = self.model(opening)?;
                if let Some(candidates_vd) = candidates {
                    model.set_candidates(candidates_vd);
                }
                let ranked = rank_users(&model, &mut link, queries, inputs, &plan).await?;
                self.close(link).await;
                Ok(ranked)
            };
            match ranked.await {
                Err(error) => self.replace_lost(error, &mut losses).await?,
                ranked => return ranked,
            }
        }
    }

    async fn ranking_table(&mut self, state: TabledState) -> Result<Option<Tensor>, ClientError> {
        let track = Track::ranked(&self.seat.blueprint.config.training);
        let line = Line::unwatched(self.shards().await?);
        self.table(track, state, line).await
    }

    /// By distance to the titles that the model writes; where popularity is to weigh as well, with the
    /// exponent that is best on the client's own validation rows.
    async fn rank_written(
        &mut self,
        data: &ClientData,
        part: Part,
        queries: &[Query<'_>],
        state: StateId,
        prompts: &Prompts,
    ) -> Result<RankingSums, ClientError> {
        let written_nd = self.written(queries, state, prompts).await?;
        let mut grounding =
            Grounding { catalogue_vd: self.catalogue(prompts).await?, weights: None };
        let gammas = self.seat.blueprint.config.grounding.gammas.clone();
        if !gammas.is_empty() {
            let weights = PopularityWeights::new(&self.popularity(data));
            let validation = self.queries(data, Part::Validation);
            let written_nd = match part {
                Part::Validation => written_nd.shallow_clone(),
                Part::Test => self.written(&validation, state, prompts).await?,
            };
            let gamma = grounding.choose_gamma(&validation, &written_nd, &weights, &gammas);
            tracing::debug!(client = %self.seat.id, ?gamma, "popularity exponent chosen");
            grounding.weights = gamma.map(|gamma| (weights, gamma));
        }
        Ok(grounding.rank(queries, &written_nd, &self.ranking_plan()))
    }

    /// Embeddings `[N, D]` of the titles written for the queries.
    async fn written(
        &mut self,
        queries: &[Query<'_>],
        state: StateId,
        prompts: &Prompts,
    ) -> Result<Tensor, ClientError> {
        let plan = self.generation_plan(prompts);
        let skip_known = self.seat.blueprint.config.grounding.skip_known;
        let mut losses = 0;
        loop {
            let written = async {
                let (opening, mut link) = self.open_ranking(Purpose::Ranking, state).await?;
                let model = self.model(opening)?;
                let titles =
                    write_titles(&model, &mut link, queries, prompts, &plan, skip_known).await?;
                self.close(link).await;
                let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
                self.embed(&titles, prompts, &plan).await
            };
            match written.await {
                Err(error) => self.replace_lost(error, &mut losses).await?,
                written => return written,
            }
        }
    }

    /// Embeddings `[V, D]` of the catalogue, computed once a run.
    async fn catalogue(&mut self, prompts: &Prompts) -> Result<Tensor, ClientError> {
        let key = self.seat.blueprint.catalogue_key(prompts)?;
        let cache = self.seat.folder.embeddings();
        let titles: Vec<&str> = prompts.titles().iter().map(String::as_str).collect();
        let shape = [titles.len() as i64, self.seat.blueprint.layout.architecture.hidden];
        if let Some(catalogue_vd) = cache.get(&key, shape) {
            return Ok(catalogue_vd);
        }
        let plan = self.generation_plan(prompts);
        let mut losses = 0;
        loop {
            match self.embed(&titles, prompts, &plan).await {
                Err(error) => self.replace_lost(error, &mut losses).await?,
                Ok(catalogue_vd) => {
                    cache.put(&key, &catalogue_vd, &self.seat.id.to_string())?;
                    return Ok(catalogue_vd);
                }
            }
        }
    }

    /// Embeddings by the base model, adapters off.
    async fn embed(
        &self,
        titles: &[&str],
        prompts: &Prompts,
        plan: &GenerationPlan,
    ) -> Result<Tensor, ClientError> {
        let (opening, mut link) = self.open_ranking(Purpose::Embedding, StateId::START).await?;
        let base = self.model(opening)?;
        let embedded_nd = embed_titles(&base, &mut link, titles, prompts, plan).await?;
        self.close(link).await;
        Ok(embedded_nd)
    }

    async fn open_ranking(
        &self,
        purpose: Purpose,
        state: StateId,
    ) -> Result<(Opening, ShardLink), ClientError> {
        let track = Track::ranked(&self.seat.blueprint.config.training);
        let opening = Opening { track, base: state, purpose };
        let link = self.open_link(Line::unwatched(self.shards().await?), opening).await?;
        Ok((opening, link))
    }

    async fn close(&self, link: ShardLink) {
        for entry in &link.stages {
            // A session that stays open is replaced by the next one: nothing to do on failure.
            let _ = entry.peers.close.ask(CloseSession { client: self.seat.id }).await;
        }
    }

    fn ranking_plan(&self) -> RankingPlan {
        let blueprint = &self.seat.blueprint;
        let config = &blueprint.config;
        RankingPlan {
            ks: cut_offs(&config.evaluation.ks),
            batch: config.evaluation.batch.get() as usize,
            stages: blueprint.layout.cut.stages().len(),
            device: blueprint.client_device(),
            run_seed: config.run.seed,
            sampled: self.sampled_protocol(),
        }
    }

    fn generation_plan(&self, prompts: &Prompts) -> GenerationPlan {
        let RankingPlan { batch, stages, device, .. } = self.ranking_plan();
        let search = self.seat.blueprint.config.generation.clone();
        GenerationPlan { search, end: vec![prompts.end()], batch, stages, device }
    }

    fn popularity(&self, data: &ClientData) -> Popularity {
        let trained = data.users.iter().filter(|user| self.seat.blueprint.trains_on(user));
        Popularity::fit(self.seat.blueprint.candidates() as usize, trained)
    }

    fn sampled_protocol(&self) -> Option<SampledProtocol> {
        let negatives = self.seat.blueprint.config.evaluation.sampled_negatives.get()?;
        Some(SampledProtocol { negatives: negatives.get() })
    }

    /// The users of a part that are ranked, in user order: all test users; of the validation users the
    /// configured number, drawn once by seed and client.
    fn queries<'a>(&self, data: &'a ClientData, part: Part) -> Vec<Query<'a>> {
        let queries: Vec<Query<'a>> =
            data.users.iter().filter_map(|user| user.query(part)).collect();
        let config = &self.seat.blueprint.config;
        let limit = match part {
            Part::Validation => config.evaluation.validation_users.get(),
            Part::Test => None,
        };
        let Some(limit) = limit.filter(|limit| queries.len() > limit.get() as usize) else {
            return queries;
        };
        let parts = [u64::from(self.seat.id.0)];
        let mut rng = seed::rng(config.run.seed, "validation users", &parts);
        let drawn: BTreeSet<usize> =
            index::sample(&mut rng, queries.len(), limit.get() as usize).into_iter().collect();
        let numbered = queries.into_iter().enumerate();
        numbered.filter(|(row, _)| drawn.contains(row)).map(|(_, query)| query).collect()
    }
}

/// The configured cut-offs and the one that chooses states.
fn cut_offs(configured: &[u32]) -> Vec<u32> {
    let all: BTreeSet<u32> = configured.iter().copied().chain([SELECTION_K]).collect();
    all.into_iter().collect()
}
