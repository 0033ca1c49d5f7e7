//! `--key value` arguments of the bench programs. Never knows a subcommand.

use crate::Outcome;
use std::collections::BTreeMap;

/// Parsed arguments: one subcommand, then options with one value each; `-X key=value` may repeat.
#[derive(Debug, Default)]
pub struct Args {
    pub command: String,
    options: BTreeMap<String, String>,
    /// Values of `-X`, passed on to the broker.
    pub extra: Vec<String>,
}

impl Args {
    /// Reads the arguments after the program's name; options may be only those in `known` (without dashes); one that ends
    /// in `!` there takes no value.
    pub fn parse(args: impl Iterator<Item = String>, known: &[&str]) -> Outcome<Args> {
        let mut parsed = Args::default();
        let mut args = args.peekable();
        if args.peek().is_some_and(|first| !first.starts_with('-')) {
            parsed.command = args.next().unwrap_or_default();
        }
        while let Some(arg) = args.next() {
            if let Some(name) = arg.strip_prefix("--")
                && known.iter().any(|known| known.strip_suffix('!') == Some(name))
            {
                parsed.options.insert(name.to_string(), String::new());
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.strip_prefix("--") {
                Some(name) if known.contains(&name) => {
                    parsed.options.insert(name.to_string(), value);
                }
                None if arg == "-X" => parsed.extra.push(value),
                _ => return Err(format!("unknown option {arg}; known: --{}", known.join(" --"))),
            }
        }
        Ok(parsed)
    }

    /// The option's text, if given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// The option as a number, or `default`.
    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Outcome<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{name} {text}: not a number")),
        }
    }

    /// The option's text, or an error that says it is needed.
    pub fn required(&self, name: &str) -> Outcome<&str> {
        self.text(name).ok_or_else(|| format!("--{name} is needed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Args> {
        Args::parse(text.split(' ').map(str::to_string), &["seconds", "port"])
    }

    #[test]
    fn command_options_and_extras() {
        let args = parse("load --seconds 3 -X a=b -X c=d").unwrap();
        assert_eq!((args.command.as_str(), args.number("seconds", 1.0).unwrap()), ("load", 3.0));
        assert_eq!((args.extra.len(), args.number("port", 7u16).unwrap()), (2, 7));
        assert!(args.required("port").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("load --second 3").unwrap_err().contains("--second"));
        assert!(parse("load --seconds").unwrap_err().contains("needs a value"));
        assert!(parse("load --seconds x").unwrap().number("seconds", 1u32).is_err());
    }
}
