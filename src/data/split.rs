//! Cuts every history into training, validation and test items (method.md 7).

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::{Dataset, GivenParts, User, UserSplit};
use crate::config::SplitKind;
use crate::ids::{ItemId, UserId};

/// Interactions a user needs to be tested under leave-one-out: one to know, one to validate, one to test.
const TESTED_FROM: usize = 3;

/// All histories in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// One a user of the data set, in user-id order.
    pub users: Vec<UserSplit>,
    /// Users who are trained on and have no test target.
    pub untested: usize,
}

/// Which targets are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Chooses between models.
    Validation,
    /// Judges the chosen one.
    Test,
}

/// What a ranking of one user starts from and looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The user.
    pub user: UserId,
    /// Known history, oldest first: the model's input, and masked in the ranking.
    pub known: Vec<ItemId>,
    /// Items to find; at least one.
    pub targets: &'a [ItemId],
}

impl UserSplit {
    /// The user's ranking task; `None` where there is nothing to find or nothing known.
    ///
    /// Known is the training part when validating, and training then validation when testing.
    pub fn query(&self, part: Part) -> Option<Query<'_>> {
        let (known, targets) = match part {
            Part::Validation => (self.train.clone(), &self.validation),
            Part::Test => ([&self.train[..], &self.validation].concat(), &self.test),
        };
        let user = self.user;
        (!known.is_empty() && !targets.is_empty()).then_some(Query { user, known, targets })
    }
}

/// Cuts the histories of `dataset`.
///
/// Leave-one-out keeps users of fewer than 3 interactions for training only. Under the given parts a
/// user without any training item is not tested: nothing would be known of them.
///
/// # Errors
/// [`SplitKind::Given`] on a data set without parts of its own.
pub fn split(dataset: &Dataset, kind: SplitKind) -> Result<Splits, DataError> {
    let mut users = Vec::with_capacity(dataset.users.len());
    for (id, user) in (0..).map(UserId).zip(&dataset.users) {
        users.push(match kind {
            SplitKind::LeaveOneOut => leave_one_out(id, user),
            SplitKind::Given => {
                let parts = user.parts.ok_or_else(|| DataError::Setting {
                    key: "data.split",
                    got: "\"given\"".to_owned(),
                    expected: format!("\"leave-one-out\": {} has no own parts", dataset.name),
                })?;
                given(id, user, parts)
            }
        });
    }
    let untested = users.iter().filter(|user| user.test.is_empty()).count();
    Ok(Splits { users, untested })
}

fn leave_one_out(id: UserId, user: &User) -> UserSplit {
    let length = user.history.len();
    if length < TESTED_FROM {
        return trained_only(id, &user.history);
    }
    let (train, targets) = user.history.split_at(length - 2);
    UserSplit {
        user: id,
        train: train.to_vec(),
        validation: targets[..1].to_vec(),
        test: targets[1..].to_vec(),
    }
}

fn given(id: UserId, user: &User, parts: GivenParts) -> UserSplit {
    if parts.train == 0 {
        return trained_only(id, &[]);
    }
    let (train, targets) = user.history.split_at(parts.train.min(user.history.len()));
    let (validation, test) = targets.split_at(parts.validation.min(targets.len()));
    UserSplit {
        user: id,
        train: train.to_vec(),
        validation: validation.to_vec(),
        test: test.to_vec(),
    }
}

fn trained_only(id: UserId, train: &[ItemId]) -> UserSplit {
    UserSplit { user: id, train: train.to_vec(), validation: Vec::new(), test: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Catalogue;

    fn dataset(histories: &[(&[u32], Option<GivenParts>)]) -> Dataset {
        let user = |&(history, parts): &(&[u32], Option<GivenParts>)| User {
            key: String::new(),
            attributes: Default::default(),
            history: items(history),
            parts,
        };
        let users = histories.iter().map(user).collect();
        Dataset { name: "small".to_owned(), catalogue: Catalogue { items: Vec::new() }, users }
    }

    fn items(ids: &[u32]) -> Vec<ItemId> {
        ids.iter().copied().map(ItemId).collect()
    }

    #[test]
    fn leave_one_out_tests_the_last_item_and_spares_users_of_fewer_than_three() {
        let dataset = dataset(&[(&[5, 6, 7, 8], None), (&[1, 2], None)]);
        let splits = split(&dataset, SplitKind::LeaveOneOut).expect("no parts needed");
        let long = &splits.users[0];
        assert_eq!(long.train, items(&[5, 6]));
        assert_eq!(long.query(Part::Validation).expect("validated").targets, items(&[7]));
        let test = long.query(Part::Test).expect("tested");
        assert_eq!((test.known, test.targets), (items(&[5, 6, 7]), &items(&[8])[..]));
        assert_eq!(splits.users[1].train, items(&[1, 2]));
        assert_eq!(splits.users[1].query(Part::Test), None);
        assert_eq!(splits.untested, 1);
    }

    #[test]
    fn given_parts_may_hold_several_targets_or_none() {
        let parts = |train, validation| Some(GivenParts { train, validation });
        let dataset = dataset(&[
            (&[1, 2, 3, 4, 5], parts(2, 1)),
            (&[1, 2], parts(2, 0)),
            (&[3], parts(0, 0)),
        ]);
        let splits = split(&dataset, SplitKind::Given).expect("has parts");
        assert_eq!(splits.users[0].test, items(&[4, 5]));
        assert_eq!(splits.users[2].query(Part::Test), None);
        assert_eq!(splits.untested, 2);
    }

    #[test]
    fn given_parts_are_refused_where_there_are_none() {
        let error = split(&dataset(&[(&[1], None)]), SplitKind::Given).expect_err("no parts");
        assert!(error.to_string().starts_with("data.split: got \"given\""), "{error}");
    }
}
