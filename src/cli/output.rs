//! How results are printed: one description, two forms. Columns for people, one object for programs; the object's keys are
//! the headers in lower case with _ for -. Prints only to standard output.

use std::io::Write;

use pelton_wire::error_code::ErrorCode;
use serde_json::{Map, Value, json};

use crate::arguments::Format;
use crate::failure::{Exit, Failure};

/// Version of the objects' shape; raised when a key changes its meaning or goes.
pub const JSON_VERSION: u32 = 1;

/// Rows under headers.
pub struct Section {
    /// Name; the key in the object when there are several sections.
    pub name: &'static str,
    /// Headers, UPPER-HYPHEN.
    pub headers: &'static [&'static str],
    /// Rows, as wide as the headers.
    pub rows: Vec<Vec<Value>>,
}

/// What a command found or did.
pub struct Report {
    command: &'static str,
    sections: Vec<Section>,
    errors: Vec<Value>,
    exit: Option<Exit>,
}

impl Report {
    /// An empty report of `pelton <command>`.
    pub fn new(command: &'static str) -> Report {
        Report { command, sections: Vec::new(), errors: Vec::new(), exit: None }
    }

    /// Adds a section.
    pub fn section(&mut self, name: &'static str, headers: &'static [&'static str], rows: Vec<Vec<Value>>) {
        self.sections.push(Section { name, headers, rows });
    }

    /// Adds something that failed; the command then ends with 1.
    pub fn failed(&mut self, item: &str, error: ErrorCode, message: &str) {
        self.exit = Some(Exit::Error);
        self.errors
            .push(json!({ "item": item, "error": error.name(), "code": error.code(), "message": message }));
    }

    /// Ends with `exit` unless something failed.
    pub fn ends_with(&mut self, exit: Exit) {
        self.exit = self.exit.or(Some(exit));
    }

    /// Prints everything.
    pub fn print(self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Table => self.print_tables()?,
            Format::Json => write_out(format!("{}\n", self.object()).as_bytes())?,
        }
        self.exit.map_or(Ok(()), |exit| Err(Failure::silent(exit)))
    }

    fn print_tables(&self) -> Result<(), Failure> {
        // Nothing but headers, beside an error, would only be in its way.
        let shown = |section: &&Section| !section.rows.is_empty() || self.errors.is_empty();
        let texts: Vec<String> = self.sections.iter().filter(shown).map(table).collect();
        write_out(texts.join("\n").as_bytes())?;
        for error in &self.errors {
            let words = |key: &str| error[key].as_str().unwrap_or_default().to_string();
            eprintln!(
                "pelton: {}: {} ({}){}",
                words("item"),
                words("error"),
                error["code"],
                after(&words("message"))
            );
        }
        Ok(())
    }

    fn object(&self) -> Value {
        let data = match self.sections.as_slice() {
            [only] => objects(only),
            sections => Value::Object(
                sections.iter().map(|section| (section.name.to_string(), objects(section))).collect(),
            ),
        };
        json!({ "_command": self.command, "_version": JSON_VERSION, "data": data, "errors": self.errors })
    }
}

fn after(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn objects(section: &Section) -> Value {
    let keys: Vec<String> =
        section.headers.iter().map(|header| header.to_lowercase().replace('-', "_")).collect();
    let object = |row: &Vec<Value>| {
        Value::Object(keys.iter().cloned().zip(row.iter().cloned()).collect::<Map<_, _>>())
    };
    Value::Array(section.rows.iter().map(object).collect())
}

/// A value in a column: lists with commas, partitions of topics as `orders:0,1`, null and nothing as `-`.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.replace(['\n', '\t', '\r'], " "),
        Value::Array(items) => {
            let between = if items.iter().any(Value::is_object) { " " } else { "," };
            items.iter().map(cell).collect::<Vec<_>>().join(between)
        }
        Value::Object(partitions) if partitions.contains_key("topic") => {
            format!("{}:{}", cell(&partitions["topic"]), cell(&value["partitions"]))
        }
        other => other.to_string(),
    };
    if text.is_empty() { "-".to_string() } else { text }
}

/// Headers that end so hold a time in milliseconds, which people get in the units they think in.
const MILLISECONDS: &str = "-MS";

/// A time in at most two units: `340ms`, `12.5s`, `3m 5s`, `2h 0m`, `4d 3h`.
fn duration_cell(value: &Value) -> String {
    let Some(ms) = value.as_i64() else { return cell(value) };
    let seconds = ms / 1000;
    match ms {
        i64::MIN..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{}s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Rows in columns; the last column is not padded, so no line ends in blanks.
fn table(section: &Section) -> String {
    let times: Vec<bool> = section.headers.iter().map(|header| header.ends_with(MILLISECONDS)).collect();
    let header =
        section.headers.iter().map(|header| header.trim_end_matches(MILLISECONDS).to_string()).collect();
    let cells = |row: &Vec<Value>| {
        let pairs = row.iter().zip(&times);
        pairs.map(|(value, time)| if *time { duration_cell(value) } else { cell(value) }).collect()
    };
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(section.rows.iter().map(cells)).collect();
    let width = |column: usize| {
        lines.iter().map(|line: &Vec<String>| line[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..section.headers.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let last = line.len() - 1;
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column < last {
                text.push_str(&" ".repeat(widths[column] - cell.chars().count() + 2));
            }
        }
        text.push('\n');
    }
    text
}

/// Writes to standard output. A reader that went away (`| head`) is a quiet, good ending.
pub fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::error(format!("standard output: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let rows =
            vec![vec![json!("orders"), json!(3), json!([1, 2])], vec![json!("a"), json!(null), json!([])]];
        Section { name: "topics", headers: &["TOPIC", "COUNT", "IN-SYNC"], rows }
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        assert_eq!(table(&section()), "TOPIC   COUNT  IN-SYNC\norders  3      1,2\na       -      -\n");
    }

    #[test]
    fn objects_have_the_headers_as_keys() {
        let mut report = Report::new("topic list");
        report.sections.push(section());
        report.failed("b", ErrorCode::InvalidTopicException, "bad");
        let object = report.object();
        assert_eq!(object["data"][0], json!({ "topic": "orders", "count": 3, "in_sync": [1, 2] }));
        assert_eq!((&object["_command"], &object["_version"]), (&json!("topic list"), &json!(1)));
        assert_eq!(object["errors"][0]["code"], json!(17));
        report.sections.push(section());
        assert_eq!(report.object()["data"]["topics"][1]["topic"], json!("a"));
    }

    #[test]
    fn partitions_and_times_are_for_people() {
        let partitions = json!([{ "topic": "a", "partitions": [0, 1] }, { "topic": "b", "partitions": [7] }]);
        assert_eq!(cell(&partitions), "a:0,1 b:7");
        assert_eq!(cell(&json!([])), "-");
        for (ms, text) in [
            (json!(0), "0ms"),
            (json!(12_540), "12.5s"),
            (json!(185_000), "3m 5s"),
            (json!(7_200_000), "2h 0m"),
            (json!(360_000_000), "4d 4h"),
            (json!(null), "-"),
        ] {
            assert_eq!(duration_cell(&ms), text);
        }
        let section = Section { name: "x", headers: &["TIME-LAG-MS"], rows: vec![vec![json!(1500)]] };
        assert_eq!(table(&section), "TIME-LAG\n1.5s\n");
        assert_eq!(objects(&section), json!([{ "time_lag_ms": 1500 }]));
    }

    #[test]
    fn control_characters_do_not_break_lines() {
        assert_eq!(cell(&json!("a\nb\tc")), "a b c");
    }
}
