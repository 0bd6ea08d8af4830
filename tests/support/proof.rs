//! A proof's last page: what clients heard beside what the store holds, by request id.
//!
//! `make prove` names a file in `PORTCULLIS_LEDGER`; each proof adds its line to it, whatever the verdict.

use std::collections::BTreeMap;
use std::io::Write;

use super::ledger::Row;
use super::load::Answered;

/// Who heard what, and which rows there are of it.
pub struct Proof {
    name: String,
    /// What was done to the gateway meanwhile, with its numbers.
    done: String,
    acknowledged: usize,
    rows: usize,
    /// Answers without a row, or with a row that says something else.
    lost: Vec<Answered>,
    /// Ids with more than one row.
    doubled: Vec<String>,
    /// Answers other than 200.
    failed: Vec<Answered>,
    /// Clients whose connection broke where none should.
    broken: usize,
}

impl Proof {
    /// `stored` has the id and the status of each row there is.
    pub fn of<'a>(
        (name, done): (&str, String),
        answered: &[Answered],
        stored: impl IntoIterator<Item = (&'a str, i64)>,
    ) -> Self {
        let mut rows: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (id, status) in stored {
            rows.entry(id).or_default().push(status);
        }
        let is_kept = |answer: &Answered| {
            let found = rows.get(answer.id.as_str());
            found.is_some_and(|found| found.contains(&i64::from(answer.status)))
        };
        let only = |wanted: &dyn Fn(&Answered) -> bool| {
            answered.iter().filter(|answer| wanted(answer)).cloned().collect()
        };
        let doubled = rows.iter().filter(|(_, found)| found.len() > 1);
        Proof {
            name: name.to_owned(),
            done,
            acknowledged: answered.len(),
            rows: rows.values().map(Vec::len).sum(),
            lost: only(&|answer| !is_kept(answer)),
            doubled: doubled.map(|(id, _)| (*id).to_owned()).collect(),
            failed: only(&|answer| answer.status != 200),
            broken: 0,
        }
    }

    /// The same with rows as they are read from a store.
    pub fn of_rows(about: (&str, String), answered: &[Answered], rows: &[Row]) -> Self {
        let stored = rows.iter().map(|row| {
            let id = row.text("request_id").expect("an id");
            (id, row.number("status"))
        });
        Proof::of(about, answered, stored)
    }

    /// Where the gateway is not killed, clients whose connection broke count as failed.
    pub fn broken(mut self, clients: usize) -> Self {
        self.broken = clients;
        self
    }

    /// No answer without its row, no row twice, and no answer but 200. Adds the line to the ledger before
    /// it fails.
    #[track_caller]
    pub fn assert_exact(self) {
        let (lost, doubled) = (self.lost.len(), self.doubled.len());
        let failed = self.failed.len() + self.broken;
        let line = [
            self.name,
            self.done,
            self.acknowledged.to_string(),
            self.rows.to_string(),
            lost.to_string(),
            doubled.to_string(),
            failed.to_string(),
        ]
        .join("\t");
        println!("ledger: {}", line.replace('\t', " | "));
        if let Some(path) = std::env::var_os("PORTCULLIS_LEDGER") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            // In one write: other proofs may add theirs at the same time.
            file.expect("the ledger").write_all(format!("{line}\n").as_bytes()).expect("written");
        }
        assert!(self.acknowledged > 0, "nothing was asked");
        let some =
            |answers: &[Answered]| format!("{:?}", answers.iter().take(10).collect::<Vec<_>>());
        assert!(lost == 0, "{lost} lost: {}", some(&self.lost));
        assert!(doubled == 0, "{doubled} doubled: {:?}", self.doubled);
        assert!(failed == 0, "{failed} failed: {}", some(&self.failed));
    }
}
