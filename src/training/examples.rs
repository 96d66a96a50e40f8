//! What a client's batches are cut from.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use crate::data::{ClientData, TrainingRows};
use crate::ids::ItemId;
use crate::model::backbone::{Batch, Inputs};
use crate::seed;

/// A client's training rows. An epoch is a list of batches, each a list of row numbers.
pub trait Examples: Send {
    /// Rows, for data-size weights and reports.
    fn rows(&self) -> usize;

    /// Row numbers of every batch of one epoch, in training order.
    fn epoch(&self, batch: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>>;

    /// The batch made of these rows. `rng` serves rows that are sampled, such as windows of a long history.
    fn batch(&self, rows: &[usize], rng: &mut ChaCha8Rng, device: Device) -> Batch;
}

/// Next-item prediction at every position of the users' training histories.
#[derive(Debug)]
pub struct HistoryExamples {
    histories: Vec<Vec<ItemId>>,
    max_history: usize,
}

/// Batches of similar length are drawn from windows of this many batches: less padding, order still random.
pub(super) const BUCKET_BATCHES: usize = 8;

impl HistoryExamples {
    /// The users of `data` with at least two training items, windows of at most `max_history` inputs.
    pub fn new(data: &ClientData, max_history: usize) -> Self {
        Self::among(data, &TrainingRows::All, max_history)
    }

    /// Those of them that `rows` admits.
    pub fn among(data: &ClientData, rows: &TrainingRows, max_history: usize) -> Self {
        let users = data.users.iter().filter(|user| user.is_row() && rows.admit(user));
        Self { histories: users.map(|user| user.train.clone()).collect(), max_history }
    }
}

impl Examples for HistoryExamples {
    fn rows(&self) -> usize {
        self.histories.len()
    }

    fn epoch(&self, batch: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        let length = |row: usize| self.histories[row].len().min(self.max_history + 1);
        buckets(self.histories.len(), batch, length, rng)
    }

    fn batch(&self, rows: &[usize], rng: &mut ChaCha8Rng, device: Device) -> Batch {
        let windows: Vec<&[ItemId]> = rows
            .iter()
            .map(|row| {
                let history = &self.histories[*row];
                let spare = history.len().saturating_sub(self.max_history + 1);
                let start = if spare == 0 { 0 } else { rng.random_range(0..=spare) };
                &history[start..history.len().min(start + self.max_history + 1)]
            })
            .collect();
        let width = windows.iter().map(|window| window.len() - 1).max().unwrap_or(0);
        let mut ids = vec![0i64; windows.len() * width];
        let (mut positions, mut labels) = (Vec::new(), Vec::new());
        for (row, window) in windows.iter().enumerate() {
            for (column, pair) in window.windows(2).enumerate() {
                let position = row * width + column;
                ids[position] = i64::from(pair[0].0);
                positions.push(position as i64);
                labels.push(i64::from(pair[1].0));
            }
        }
        let shape = [windows.len() as i64, width as i64];
        Batch {
            inputs: Inputs::Ids(Tensor::from_slice(&ids).view(shape).to_device(device)),
            rows_m: Tensor::from_slice(&positions).to_device(device),
            labels_m: Tensor::from_slice(&labels).to_device(device),
        }
    }
}

/// Batches of rows of similar length, in random order.
pub(super) fn buckets(
    rows: usize,
    batch: usize,
    length: impl Fn(usize) -> usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(rng);
    for window in order.chunks_mut(batch * BUCKET_BATCHES) {
        window.sort_by_key(|row| length(*row));
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(batch).map(<[usize]>::to_vec).collect();
    batches.shuffle(rng);
    batches
}

/// Random tokens with a causal language-model loss: the load of the benches, no data needed.
#[derive(Clone, Debug)]
pub struct RandomTokens {
    /// Sequences an epoch.
    pub sequences: usize,
    /// Tokens of a sequence, labels included.
    pub length: i64,
    /// Tokens are drawn below this.
    pub vocab: i64,
    /// Tells clients' texts apart.
    pub seed: u64,
}

impl Examples for RandomTokens {
    fn rows(&self) -> usize {
        self.sequences
    }

    fn epoch(&self, batch: usize, _rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        let rows: Vec<usize> = (0..self.sequences).collect();
        rows.chunks(batch).map(<[usize]>::to_vec).collect()
    }

    fn batch(&self, rows: &[usize], _rng: &mut ChaCha8Rng, device: Device) -> Batch {
        let mut tokens = Vec::with_capacity(rows.len() * self.length as usize);
        for row in rows {
            let mut rng = seed::rng(self.seed, "random tokens", &[*row as u64]);
            tokens.extend((0..=self.length).map(|_| rng.random_range(0..self.vocab)));
        }
        let tokens = Tensor::from_slice(&tokens).view([rows.len() as i64, self.length + 1]);
        let labels = tokens.narrow(1, 1, self.length).reshape([-1]);
        Batch {
            inputs: Inputs::Ids(tokens.narrow(1, 0, self.length).contiguous().to_device(device)),
            rows_m: Tensor::arange(labels.numel() as i64, (tch::Kind::Int64, device)),
            labels_m: labels.to_device(device),
        }
    }
}
