//! Ranks of single users, as a client keeps them in a file of its own: `user,ranks`, ranks apart by spaces.

use thiserror::Error;

use crate::ids::UserId;

const HEADER: [&str; 2] = ["user", "ranks"];

/// Where one user's targets stand in the ranking of the full catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRanks {
    /// The user: its position in the data set.
    pub user: UserId,
    /// One rank a target, from 1, in the order of the targets.
    pub ranks: Vec<u32>,
}

/// Why a text is no file of ranks.
#[derive(Debug, Error)]
pub enum UserRanksError {
    /// The file is not CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// The columns are other ones.
    #[error("got the columns {got:?}, expected user,ranks")]
    Header {
        /// First line.
        got: String,
    },
    /// A row that is no user with ranks.
    #[error("line {line}: got {got:?}, expected a user's number and at least one rank from 1")]
    Row {
        /// Line, from 1.
        line: u64,
        /// The row.
        got: String,
    },
}

impl UserRanks {
    /// The file's text, one row a user in the order given.
    pub fn to_csv(users: &[Self]) -> String {
        let row = |user: &Self| {
            let ranks: Vec<String> = user.ranks.iter().map(u32::to_string).collect();
            format!("{},{}\n", user.user.0, ranks.join(" "))
        };
        let rows: String = users.iter().map(row).collect();
        format!("{}\n{rows}", HEADER.join(","))
    }

    /// Reads what [`UserRanks::to_csv`] wrote.
    ///
    /// # Errors
    /// Other columns, or a row without a user or without a rank.
    pub fn from_csv(text: &str) -> Result<Vec<Self>, UserRanksError> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns = reader.headers()?;
        if *columns != HEADER[..] {
            return Err(UserRanksError::Header { got: Vec::from_iter(columns).join(",") });
        }
        let mut users = Vec::new();
        for record in reader.records() {
            let record = record?;
            let user = Self::from_record(&record).ok_or_else(|| UserRanksError::Row {
                line: record.position().map_or(0, csv::Position::line),
                got: Vec::from_iter(&record).join(","),
            })?;
            users.push(user);
        }
        Ok(users)
    }

    fn from_record(record: &csv::StringRecord) -> Option<Self> {
        let user = UserId(record.get(0)?.parse().ok()?);
        let ranks: Result<Vec<u32>, _> = record.get(1)?.split(' ').map(str::parse).collect();
        let ranks = ranks.ok().filter(|ranks| !ranks.is_empty() && !ranks.contains(&0))?;
        Some(Self { user, ranks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let users = [(3, vec![17]), (5, vec![1, 402, 2])];
        let users = users.map(|(user, ranks)| UserRanks { user: UserId(user), ranks });
        let text = UserRanks::to_csv(&users);
        assert_eq!(text, "user,ranks\n3,17\n5,1 402 2\n");
        assert_eq!(UserRanks::from_csv(&text).expect("its own text"), users);
        assert_eq!(UserRanks::from_csv("user,ranks\n").expect("nobody"), []);
    }

    #[test]
    fn another_file_is_refused_by_its_line() {
        let error =
            |text: &str| UserRanks::from_csv(text).expect_err("should be refused").to_string();
        assert!(error("user,rank\n3,17\n").contains("\"user,rank\""));
        for row in ["3,", "3,0", "x,1", "3,1 x"] {
            let error = error(&format!("user,ranks\n1,1\n{row}\n"));
            assert!(error.contains("line 3") && error.contains(row), "{error}");
        }
    }
}
