//! Rules of the sections `data` and `clients`.

use crate::config::checks::Checks;
use crate::config::{AssignmentKind, Config, DataFormat, OrNone, SplitKind};

impl Config {
    pub(super) fn check_data(&self, checks: &mut Checks) {
        let data = &self.data;
        let synthetic = data.format == DataFormat::Synthetic;
        match &data.path {
            OrNone::None => checks.require(
                synthetic,
                "data.path",
                "none",
                "must name the data folder unless data.format = \"synthetic\"",
            ),
            OrNone::Some(path) => checks.require(
                !synthetic,
                "data.path",
                path.display(),
                "must be \"none\" with data.format = \"synthetic\", which reads no folder",
            ),
        }
        checks.require(
            data.split == SplitKind::LeaveOneOut || data.format == DataFormat::Sequences,
            "data.split",
            "given",
            "needs data.format = \"sequences\", the only one with parts of its own",
        );
        if synthetic {
            self.check_synthetic(checks);
        }
        if data.format == DataFormat::Table {
            self.check_table(checks);
        }
    }

    fn check_synthetic(&self, checks: &mut Checks) {
        let synthetic = &self.data.synthetic;
        let (users, items) = (synthetic.users.get(), synthetic.items.get());
        let (groups, history) = (synthetic.groups.get(), synthetic.mean_history.get());
        let rule = format!("must not exceed data.synthetic.users ({users})");
        checks.require(groups <= users, "data.synthetic.groups", groups, rule);
        let rule = format!("must not exceed data.synthetic.items ({items})");
        checks.require(groups <= items, "data.synthetic.groups", groups, rule);
        checks.require(
            groups >= 2 || !synthetic.odd_group,
            "data.synthetic.odd_group",
            true,
            "needs data.synthetic.groups of at least 2",
        );
        let rule = format!("must be below data.synthetic.items ({items}): items do not repeat");
        checks.require(history < items, "data.synthetic.mean_history", history, rule);
        checks.require(
            history >= 3,
            "data.synthetic.mean_history",
            history,
            "must be at least 3: training, validation and test take one each",
        );
    }

    fn check_table(&self, checks: &mut Checks) {
        let table = &self.data.table;
        checks.require(
            ["auto", ",", ";", "|", "\t", "\\t"].contains(&table.delimiter.as_str()),
            "data.table.delimiter",
            format!("{:?}", table.delimiter),
            r#"must be "auto", ",", ";", "|" or "\t""#,
        );
        let columns = [
            ("data.table.user_column", &table.user_column),
            ("data.table.item_column", &table.item_column),
            ("data.table.title_column", &table.title_column),
        ];
        for (key, column) in columns {
            checks.require(!column.is_empty(), key, "\"\"", "must name a column");
        }
        checks.require(
            table.user_column != table.item_column,
            "data.table.item_column",
            &table.item_column,
            "must differ from data.table.user_column",
        );
    }

    pub(super) fn check_clients(&self, checks: &mut Checks) {
        let clients = &self.clients;
        let assignment = clients.assignment;
        checks.require(
            assignment != AssignmentKind::File || clients.file != OrNone::None,
            "clients.file",
            "none",
            "must name the file of `user,client` rows when clients.assignment = \"file\"",
        );
        if assignment == AssignmentKind::Attribute {
            checks.require(
                clients.attribute != OrNone::None,
                "clients.attribute",
                "none",
                "must name a user attribute when clients.assignment = \"attribute\"",
            );
            checks.require(
                self.data.format != DataFormat::Sequences,
                "clients.assignment",
                "attribute",
                "needs user attributes, which data.format = \"sequences\" has not",
            );
            checks.require(
                self.data.format != DataFormat::Table || self.data.table.users != OrNone::None,
                "data.table.users",
                "none",
                "must name the users file when clients.assignment = \"attribute\"",
            );
        }
        if assignment == AssignmentKind::Silos {
            checks.require(
                self.data.format != DataFormat::Synthetic,
                "clients.assignment",
                "silos",
                "needs data in folders, and data.format = \"synthetic\" reads none",
            );
            checks.require(
                !clients.pooled,
                "clients.pooled",
                true,
                "must be false when clients.assignment = \"silos\": nobody has them all",
            );
            checks.require(
                self.training.rows.get().is_none(),
                "training.rows",
                "a number",
                "must be \"none\" when clients.assignment = \"silos\": it draws from all users at once",
            );
        }
        let count = clients.count.get();
        let users = self.data.synthetic.users.get();
        let cut = matches!(assignment, AssignmentKind::KMeans | AssignmentKind::Uniform);
        if cut && self.data.format == DataFormat::Synthetic {
            let rule = format!("must not exceed data.synthetic.users ({users})");
            checks.require(count <= users, "clients.count", count, rule);
        }
    }
}
