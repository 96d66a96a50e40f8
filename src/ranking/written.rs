//! Ranks users by the titles that a model writes for them: generate, embed, ground (method.md 6.1).
//!
//! Titles are written by the model under test and embedded by the base model, adapters off: two
//! sessions on the shards, so the steps are functions of their own.
//!
//! Shapes: N = queries, V = catalogue, D = hidden width.

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use super::evaluate::{RankCollector, RankingPlan, RankingSums};
use super::grounding::{GammaSearch, PopularityWeights, distance_scores, distances};
use crate::data::{Prompts, Query};
use crate::generation::{GenerationPlan, Hypothesis, embed, generate};
use crate::split::ClientModel;
use crate::training::BodyLink;

/// Titles whose distances to the catalogue are held at once.
const CHUNK: usize = 256;

/// The best title written for every query; empty where the model wrote none. With `skip_known` it is the
/// best of those that the user does not know, unless they know all of them.
///
/// # Errors
/// What the link failed with.
pub async fn write_titles<L: BodyLink>(
    model: &ClientModel,
    link: &mut L,
    queries: &[Query<'_>],
    prompts: &Prompts,
    plan: &GenerationPlan,
    skip_known: bool,
) -> Result<Vec<String>, L::Error> {
    let asked: Vec<Vec<u32>> =
        queries.iter().map(|query| prompts.prompt_ids(&query.known)).collect();
    let written = generate(model, link, &asked, plan).await?;
    let titles = |hypotheses: &Vec<Hypothesis>| -> Vec<String> {
        hypotheses.iter().map(|written| prompts.decode_title(&written.tokens)).collect()
    };
    let best = |(query, hypotheses): (&Query<'_>, &Vec<Hypothesis>)| {
        let known: BTreeSet<&str> =
            query.known.iter().map(|item| prompts.titles()[item.index()].as_str()).collect();
        best_title(titles(hypotheses), |title| skip_known && known.contains(title))
    };
    Ok(queries.iter().zip(&written).map(best).collect())
}

/// The first title that is not to be skipped, or else the first.
fn best_title(titles: Vec<String>, skip: impl Fn(&str) -> bool) -> String {
    let place = titles.iter().position(|title| !skip(title)).unwrap_or_default();
    titles.into_iter().nth(place).unwrap_or_default()
}

/// Embeddings of titles by the base model, `[N, D]`, f32 on the CPU; equal titles are embedded once.
///
/// # Errors
/// What the link failed with.
pub async fn embed_titles<L: BodyLink>(
    base: &ClientModel,
    link: &mut L,
    titles: &[&str],
    prompts: &Prompts,
    plan: &GenerationPlan,
) -> Result<Tensor, L::Error> {
    let mut numbers: BTreeMap<&str, i64> = BTreeMap::new();
    let mut texts = Vec::new();
    let mut places = Vec::with_capacity(titles.len());
    for title in titles {
        let number = *numbers.entry(title).or_insert_with(|| {
            // A text that a tokenizer refuses is none that a catalogue has.
            texts.push(prompts.text_ids(title).unwrap_or_else(|_| vec![prompts.end()]));
            texts.len() as i64 - 1
        });
        places.push(number);
    }
    let embedded = embed(base, link, &texts, plan).await?;
    Ok(embedded.index_select(0, &Tensor::from_slice(&places)))
}

/// Grounds embedded titles in an embedded catalogue.
#[derive(Debug)]
pub struct Grounding {
    /// Embeddings of the catalogue, `[V, D]`.
    pub catalogue_vd: Tensor,
    /// Weights by popularity and their exponent; `None` ranks by distance alone.
    pub weights: Option<(PopularityWeights, f64)>,
}

impl Grounding {
    /// Ranks every query's targets by the title written for it, `[N, D]`.
    pub fn rank(
        &self,
        queries: &[Query<'_>],
        written_nd: &Tensor,
        plan: &RankingPlan,
    ) -> RankingSums {
        let mut collector = RankCollector::new(queries, plan);
        self.each_distance(written_nd, |row, distances| {
            let scores = match &self.weights {
                Some((weights, gamma)) => weights.scores(distances, *gamma),
                None => distance_scores(distances),
            };
            collector.add_one(row, &scores);
        });
        collector.finish()
    }

    /// Ranks validation users under every exponent of `gammas`; the best of them.
    pub fn choose_gamma(
        &self,
        queries: &[Query<'_>],
        written_nd: &Tensor,
        weights: &PopularityWeights,
        gammas: &[f64],
    ) -> Option<f64> {
        let mut search = GammaSearch::new(gammas);
        self.each_distance(written_nd, |row, distances| {
            let query = &queries[row];
            search.add(weights, distances, &query.known, query.targets);
        });
        search.best()
    }

    fn each_distance(&self, written_nd: &Tensor, mut take: impl FnMut(usize, &[f32])) {
        let count = written_nd.size()[0] as usize;
        for start in (0..count).step_by(CHUNK) {
            let length = CHUNK.min(count - start);
            let chunk_nd = written_nd.narrow(0, start as i64, length as i64);
            let distances_nv = distances(&chunk_nd, &self.catalogue_vd).contiguous();
            let items = distances_nv.size()[1] as usize;
            let mut values = vec![0f32; length * items];
            distances_nv.copy_data(&mut values, length * items);
            for (row, distances) in values.chunks(items).enumerate() {
                take(start + row, distances);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_title_gives_way_to_the_next_beam_unless_all_are_known() {
        let titles = || ["Alien", "Heat", "Up"].map(str::to_owned).to_vec();
        assert_eq!(best_title(titles(), |_| false), "Alien");
        assert_eq!(best_title(titles(), |title| title < "B"), "Heat");
        assert_eq!(best_title(titles(), |_| true), "Alien");
        assert_eq!(best_title(Vec::new(), |_| true), "");
    }
}
