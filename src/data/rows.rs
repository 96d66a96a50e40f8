//! Whose histories are trained on: all of them, or few (method.md section 9).

use std::collections::BTreeSet;

use rand::seq::index;

use super::UserSplit;
use super::error::DataError;
use crate::ids::UserId;
use crate::seed;

impl UserSplit {
    /// Whether there is something to learn from: an item and the one that follows it.
    pub fn is_row(&self) -> bool {
        self.train.len() >= 2
    }
}

/// The users whose training items are trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingRows {
    /// Everybody's.
    All,
    /// Of these users only; the others are validated and tested with their known histories.
    Drawn(BTreeSet<UserId>),
}

impl TrainingRows {
    /// Draws `count` of the rows of `users` uniformly without replacement; `None` takes all.
    ///
    /// The draw knows nothing of clients: every assignment, and a pooled run, trains on the same rows.
    ///
    /// # Errors
    /// More rows than there are.
    pub fn draw(users: &[UserSplit], count: Option<u64>, run_seed: u64) -> Result<Self, DataError> {
        let Some(count) = count else { return Ok(Self::All) };
        let mut rows: Vec<UserId> =
            users.iter().filter(|user| user.is_row()).map(|user| user.user).collect();
        rows.sort_unstable();
        if count > rows.len() as u64 {
            return Err(DataError::Setting {
                key: "training.rows",
                got: count.to_string(),
                expected: format!("at most {}, the users with two training items", rows.len()),
            });
        }
        let mut rng = seed::rng(run_seed, "training rows", &[]);
        let drawn = index::sample(&mut rng, rows.len(), count as usize);
        Ok(Self::Drawn(drawn.into_iter().map(|position| rows[position]).collect()))
    }

    /// Whether anything of this user may be trained on.
    pub fn admit(&self, user: &UserSplit) -> bool {
        match self {
            Self::All => true,
            Self::Drawn(users) => users.contains(&user.user),
        }
    }
}
