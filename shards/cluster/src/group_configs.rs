//! Settings of single groups (resources of type GROUP): which there are, within which bounds, and which count for a group
//! (Kafka's GroupConfig, 4.3).

use pelton_model::{ConsumerGroupConfig, GroupConfig};

use crate::config_defs::{self, ConfigDef};
use crate::controller::{Refusal, Refused};
use crate::image::MetadataImage;
use crate::record::{ConfigResource, MetadataRecord};

/// Groups that may have settings of their own.
pub const GROUPS_MAX: usize = 100_000;

const SESSION: &str = "consumer.session.timeout.ms";
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
const ASSIGNMENT: &str = "consumer.assignment.interval.ms";

/// The setting of this name.
pub fn known(name: &str) -> Result<&'static ConfigDef, Refused> {
    let found = config_defs::OF_ONE_GROUP.iter().find(|def| def.name == name);
    found.ok_or_else(|| {
        (Refusal::InvalidConfig, format!("Unknown group config name: {}", name.escape_debug()))
    })
}

fn bounds(config: &GroupConfig, name: &str) -> (i32, i32) {
    match name {
        SESSION => config.consumer_session_timeout_bounds_ms,
        HEARTBEAT => config.consumer_heartbeat_interval_bounds_ms,
        _ => config.consumer_assignment_interval_bounds_ms,
    }
}

/// Whether a value, a number, is within the broker's bounds.
pub fn check(config: &GroupConfig, name: &str, value: &str) -> Result<(), Refused> {
    let number: i32 = value.trim().parse().unwrap_or_default();
    let (min, max) = bounds(config, name);
    let refuse = |relation: &str, which: &str| {
        let bound = name.replacen("consumer.", &format!("group.consumer.{which}."), 1);
        Err((Refusal::InvalidConfig, format!("{name} must be {relation} than or equal to {bound}")))
    };
    match number {
        _ if number < min => refuse("greater", "min"),
        _ if number > max => refuse("less", "max"),
        _ => Ok(()),
    }
}

/// Whether what records make of a group's settings fits together, and whether there is room for it.
pub fn check_all(
    image: &MetadataImage,
    config: &GroupConfig,
    group: &str,
    records: &[MetadataRecord],
) -> Result<(), Refused> {
    let mut configs = image.configs_of(&ConfigResource::Group(group.to_string()));
    if configs.is_empty() && !records.is_empty() && image.groups_with_configs().len() >= GROUPS_MAX {
        let text = format!("{GROUPS_MAX} groups have settings of their own; no more can have any.");
        return Err((Refusal::PolicyViolation, text));
    }
    for record in records {
        if let MetadataRecord::Config { name, value, .. } = record {
            match value {
                Some(value) => configs.insert(name.clone(), value.clone()),
                None => configs.remove(name),
            };
        }
    }
    let number = |name: &str, otherwise: i32| {
        configs.get(name).and_then(|value| value.trim().parse().ok()).unwrap_or(otherwise)
    };
    let session_ms: i32 = number(SESSION, config.consumer_session_timeout_ms);
    if session_ms <= number(HEARTBEAT, config.consumer_heartbeat_interval_ms) {
        let text = format!("{SESSION} must be greater than {HEARTBEAT}");
        return Err((Refusal::InvalidConfig, text));
    }
    Ok(())
}

/// The settings of a group of the consumer protocol that count: its own, held within the broker's bounds of today, else the broker's.
pub fn effective(image: &MetadataImage, config: &GroupConfig, group: &str) -> ConsumerGroupConfig {
    let own = |name: &str| {
        let value: i32 = image.group_config(group, name)?.trim().parse().ok()?;
        let (min, max) = bounds(config, name);
        Some(value.min(max).max(min))
    };
    let of_broker = ConsumerGroupConfig::from(config);
    ConsumerGroupConfig {
        session_timeout_ms: own(SESSION).unwrap_or(of_broker.session_timeout_ms),
        heartbeat_interval_ms: own(HEARTBEAT).unwrap_or(of_broker.heartbeat_interval_ms),
        assignment_interval_ms: own(ASSIGNMENT).or(of_broker.assignment_interval_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: Option<&str>) -> MetadataRecord {
        let (resource, value) = (ConfigResource::Group("g".to_string()), value.map(str::to_string));
        MetadataRecord::Config { resource, name: name.to_string(), value }
    }

    #[test]
    fn values_stay_within_the_bounds_and_fit_together() {
        let (mut image, mut config) = (MetadataImage::default(), GroupConfig::default());
        let text = |refused: Result<(), Refused>| refused.map_err(|(_, text)| text);
        assert_eq!(
            text(check(&config, HEARTBEAT, "4999")),
            Err("consumer.heartbeat.interval.ms must be greater than or equal to \
                 group.consumer.min.heartbeat.interval.ms"
                .to_string())
        );
        assert!(check(&config, SESSION, "60001").is_err() && check(&config, SESSION, "60000").is_ok());
        config.consumer_session_timeout_bounds_ms.0 = 1;
        let session = set(SESSION, Some("5000"));
        assert!(
            check_all(&image, &config, "g", std::slice::from_ref(&session)).is_err(),
            "not above the heartbeat"
        );
        assert!(check_all(&image, &config, "g", &[set(SESSION, Some("5001"))]).is_ok());
        image.apply(1, &[session, set(HEARTBEAT, Some("20000"))]);
        let effective_now = effective(&image, &config, "g");
        assert_eq!((effective_now.session_timeout_ms, effective_now.heartbeat_interval_ms), (5000, 15_000));
        assert_eq!(effective(&image, &config, "other").session_timeout_ms, 45_000);
        let copy = MetadataImage::from_snapshot(&image.snapshot()).unwrap();
        assert_eq!((copy.groups_with_configs().collect::<Vec<_>>(), &copy), (vec!["g"], &image));
        image.apply(2, &[set(HEARTBEAT, None), set(SESSION, None)]);
        assert_eq!(image.groups_with_configs().len(), 0, "a group without settings is forgotten");
    }
}
