//! What a causal block keeps of a decoding, and how new tokens attend to it.
//!
//! Beams of a prompt share its keys and values: a prompt stands here once, however many rows continue
//! it, and only what a row has written itself is moved when beams are re-ordered.
//!
//! Shapes: P = prompts, C = columns of the longest, R = rows that continue them, W = rows of the prompt
//! with most, S = written tokens, K = key-value heads, G = query heads of each, E = head width.

use tch::{Kind, Tensor};

/// Keys and values of the tokens so far.
#[derive(Debug)]
pub struct KeyValues {
    /// `[P, K, C, E]`.
    prompts: Pair,
    /// `[R, K, S, E]`; `None` before the first token.
    written: Option<Pair>,
}

#[derive(Debug)]
struct Pair {
    keys: Tensor,
    values: Tensor,
}

impl Pair {
    fn select(&self, rows: &Tensor) -> Self {
        let of = |t: &Tensor| t.index_select(0, rows);
        Self { keys: of(&self.keys), values: of(&self.values) }
    }

    fn append(&self, more: &Self) -> Self {
        let joined = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 2);
        Self { keys: joined(&self.keys, &more.keys), values: joined(&self.values, &more.values) }
    }

    fn bytes(&self) -> u64 {
        let bytes = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        bytes(&self.keys) + bytes(&self.values)
    }
}

/// The rows of one new token each, and where they stand.
#[derive(Debug)]
pub struct NewToken {
    /// Its position in its own text, `[R]`.
    pub positions_r: Tensor,
    /// Which rows continue which prompt.
    pub rows: RowsOfPrompts,
    /// 0 for a prompt's tokens and minus infinity for its padding, `[P, 1, 1, C]` of f32; `None` where no
    /// prompt is padded.
    pub padding: Option<Tensor>,
}

/// Which prompt each row continues. All rows of a prompt are computed together, against one copy of its
/// keys and values; prompts with fewer rows than others get empty ones.
#[derive(Debug)]
pub struct RowsOfPrompts {
    prompts: i64,
    width: i64,
    /// Row r's place among `P * W`, `[R]`; `None` if row r stands at place r and no place is empty.
    places_r: Option<Tensor>,
}

impl RowsOfPrompts {
    /// Row r continues prompt `prompts_r[r]`, each of them below `prompts`.
    pub fn new(prompts_r: &[i64], prompts: i64, device: tch::Device) -> Self {
        let mut counts = vec![0i64; prompts as usize];
        let nth: Vec<i64> = prompts_r
            .iter()
            .map(|prompt| {
                let count = &mut counts[*prompt as usize];
                *count += 1;
                *count - 1
            })
            .collect();
        let width = counts.iter().copied().max().unwrap_or_default().max(1);
        let places: Vec<i64> =
            prompts_r.iter().zip(&nth).map(|(prompt, nth)| prompt * width + nth).collect();
        let regular = places.len() as i64 == prompts * width
            && places.iter().zip(0..).all(|(place, row)| *place == row);
        let places_r = (!regular).then(|| Tensor::from_slice(&places).to_device(device));
        Self { prompts, width, places_r }
    }

    /// `[R, K, G, X]` to `[P, K, W * G, X]`, zeros in empty places.
    fn by_prompt(&self, rows_rkgx: &Tensor) -> Tensor {
        let (_, heads, group, x) = rows_rkgx.size4().expect("heads have four dimensions");
        let placed = match &self.places_r {
            None => rows_rkgx.shallow_clone(),
            Some(places_r) => {
                let options = (rows_rkgx.kind(), rows_rkgx.device());
                Tensor::zeros([self.prompts * self.width, heads, group, x], options)
                    .index_copy(0, places_r, rows_rkgx)
            }
        };
        let placed = placed.reshape([self.prompts, self.width, heads, group, x]);
        placed.transpose(1, 2).reshape([self.prompts, heads, self.width * group, x])
    }

    /// `[P, K, W * G, X]` to `[R, K, G, X]`.
    fn by_row(&self, prompts_pkwx: &Tensor) -> Tensor {
        let (prompts, heads, rows, x) = prompts_pkwx.size4().expect("heads have four dimensions");
        let group = rows / self.width;
        let placed = prompts_pkwx.view([prompts, heads, self.width, group, x]).transpose(1, 2);
        let placed = placed.reshape([prompts * self.width, heads, group, x]);
        match &self.places_r {
            None => placed,
            Some(places_r) => placed.index_select(0, places_r),
        }
    }
}

impl KeyValues {
    /// Keys and values of prompts, `[P, K, C, E]`.
    pub fn of_prompts(keys: &Tensor, values: &Tensor) -> Self {
        let prompts = Pair { keys: keys.contiguous(), values: values.contiguous() };
        Self { prompts, written: None }
    }

    /// Every row goes on from the row that `parents_r` names; rows that nobody names are dropped.
    pub fn reorder(&mut self, parents_r: &Tensor) {
        self.written = self.written.take().map(|written| written.select(parents_r));
    }

    /// Keeps the prompts that `kept_p` names, in that order.
    pub fn keep_prompts(&mut self, kept_p: &Tensor) {
        self.prompts = self.prompts.select(kept_p);
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.prompts.bytes() + self.written.as_ref().map_or(0, Pair::bytes)
    }

    /// One new token of every row joins, with its key and value `[R, K, 1, E]`.
    pub fn push(&mut self, keys: Tensor, values: Tensor) {
        let new = Pair { keys, values };
        self.written = Some(match self.written.take() {
            Some(written) => written.append(&new),
            None => new,
        });
    }

    /// What the newest tokens' queries `[R, K, G, E]` gather from the prompts and from what their rows
    /// wrote, `[R, K, G, E]`: softmax attention over both together, its weights in f32.
    pub fn attend(&self, q_rkge: &Tensor, token: &NewToken) -> Tensor {
        let written = self.written.as_ref().expect("the newest token has been pushed");
        let kind = q_rkge.kind();
        let width = *q_rkge.size().last().expect("heads have four dimensions");
        let q_rkge = q_rkge * (width as f64).sqrt().recip();
        let scores = |queries: &Tensor, keys: &Tensor| {
            queries.matmul(&keys.transpose(2, 3)).to_kind(Kind::Float)
        };
        let mut of_prompts = scores(&token.rows.by_prompt(&q_rkge), &self.prompts.keys);
        if let Some(padding) = &token.padding {
            of_prompts += padding;
        }
        let columns = self.prompts.keys.size()[2];
        let all = [token.rows.by_row(&of_prompts), scores(&q_rkge, &written.keys)];
        let weights = Tensor::cat(&all, 3).softmax(-1, Kind::Float).to_kind(kind);
        let to_prompts = token.rows.by_prompt(&weights.narrow(3, 0, columns));
        let to_written = weights.narrow(3, columns, written.keys.size()[2]);
        token.rows.by_row(&to_prompts.matmul(&self.prompts.values))
            + to_written.matmul(&written.values)
    }
}
