//! What is compared: the columns of the tables and the processes behind them. Only starts them.

use crate::Outcome;
use crate::server::{self, Place, Server};
use std::path::{Path, PathBuf};

/// What is started; one process serves several columns that differ by topic settings only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    Floor,
    FloorDurable,
    FloorSpinning,
    Pelton,
    PeltonSpinning,
    Kafka,
    /// A broker written in Rust that keeps everything in memory.
    Tansu,
}

/// All of them, in the order of a round.
pub const PROCESSES: [Process; 7] = [
    Process::Floor,
    Process::FloorDurable,
    Process::FloorSpinning,
    Process::Pelton,
    Process::PeltonSpinning,
    Process::Kafka,
    Process::Tansu,
];

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct System {
    pub name: &'static str,
    pub process: Process,
    pub configs: &'static [(&'static str, &'static str)],
}

const EACH: &[(&str, &str)] = &[("flush.messages", "1")];
const LATER: &[(&str, &str)] = &[("flush.messages", "9223372036854775807")];

pub const FLOOR: System = System { name: "floor", process: Process::Floor, configs: &[] };
pub const FLOOR_DURABLE: System =
    System { name: "floor durable", process: Process::FloorDurable, configs: &[] };
pub const FLOOR_SPINNING: System =
    System { name: "floor durable, spinning", process: Process::FloorSpinning, configs: &[] };
pub const PELTON: System = System { name: "Pelton", process: Process::Pelton, configs: EACH };
pub const PELTON_LATER: System =
    System { name: "Pelton unflushed", process: Process::Pelton, configs: LATER };
pub const PELTON_SPINNING: System =
    System { name: "Pelton, spinning", process: Process::PeltonSpinning, configs: EACH };
pub const KAFKA_FLUSHED: System = System { name: "Kafka flushed", process: Process::Kafka, configs: EACH };
pub const KAFKA: System = System { name: "Kafka default", process: Process::Kafka, configs: &[] };

pub const TANSU: System = System { name: "Tansu, in memory", process: Process::Tansu, configs: &[] };

/// All columns.
pub const SYSTEMS: [System; 9] = [
    FLOOR,
    FLOOR_DURABLE,
    FLOOR_SPINNING,
    PELTON,
    PELTON_LATER,
    PELTON_SPINNING,
    KAFKA_FLUSHED,
    KAFKA,
    TANSU,
];

/// The spin of the latency profile, microseconds: about one device write.
const SPIN_US: u64 = 200;

/// Retention is looked at each second, by Pelton and by Kafka: only the kept-up run has anything to drop.
const SWIFT_RETENTION: [&str; 2] = ["log.retention.check.interval.ms=1000", "log.initial.task.delay.ms=1000"];

/// Where the programs are; none: left out.
#[derive(Clone, Debug)]
pub struct Programs {
    pub pelton: Option<PathBuf>,
    pub jars: Option<PathBuf>,
    pub tansu: Option<PathBuf>,
    pub extra: Vec<String>,
    pub port: u16,
}

impl Programs {
    /// Starts a process on core 0 with its data under `dir`; none if its program is not there.
    pub fn start(&self, process: Process, dir: &Path) -> Outcome<Option<Server>> {
        server::port_is_free(self.port)?;
        let place = Place { port: self.port, dir: dir.to_path_buf(), cores: Some("0".into()) };
        let swift = SWIFT_RETENTION.map(str::to_string);
        let extra = [&swift, &self.extra[..]].concat();
        let spinning = [extra.clone(), vec![format!("pelton.spin.us={SPIN_US}")]].concat();
        let pelton = |extra: &[String]| {
            self.pelton.as_ref().map(|program| server::pelton(program, &place, extra)).transpose()
        };
        let server = match process {
            Process::Floor => Some(server::floor(&place, None, 0)?),
            Process::FloorDurable => Some(server::floor(&place, Some(2), 0)?),
            Process::FloorSpinning => Some(server::floor(&place, Some(2), SPIN_US)?),
            Process::Pelton => pelton(&extra)?,
            Process::PeltonSpinning => pelton(&spinning)?,
            Process::Tansu => {
                self.tansu.as_ref().map(|program| server::tansu(program, &place)).transpose()?
            }
            Process::Kafka => {
                self.jars.as_ref().map(|jars| server::kafka_with(jars, &place, &swift)).transpose()?
            }
        };
        if let Some(server) = &server {
            server::warm(&server.bootstrap)?;
        }
        Ok(server)
    }
}
