//! Writes a history: one JSON object per line, ordered by configuration and test id.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeTuple, Serializer};

use super::{History, Record, Sample};

#[derive(serde::Serialize)]
struct Line<'a> {
    k: (&'a str, &'a str),
    v: Known<'a>,
}

#[derive(serde::Serialize)]
struct Known<'a> {
    n: u64,
    f: u64,
    last_run: &'a str,
    ok: &'a [Sample],
    fail: &'a [Sample],
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(&*self.run)?;
        tuple.serialize_element(&self.at)?;
        tuple.serialize_element(&self.seconds)?;
        tuple.end()
    }
}

impl History {
    /// Writes all records. [`History::read`] returns an equal history.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        let mut text = Vec::new();
        for (config, records) in &self.records {
            for (id, record) in records {
                text.clear();
                serde_json::to_writer(&mut text, &line(config, id, record))?;
                text.push(b'\n');
                output.write_all(&text)?;
            }
        }
        Ok(())
    }
}

fn line<'a>(config: &'a str, id: &'a str, record: &'a Record) -> Line<'a> {
    let Record { attempts, failures, last_run, passed, failed } = record;
    Line { k: (config, id), v: Known { n: *attempts, f: *failures, last_run, ok: passed, fail: failed } }
}
