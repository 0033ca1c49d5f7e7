//! `orders` or `orders:0,1` on the command line: a topic, or some of its partitions.

/// A topic and which of its partitions; none named: all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPartitions {
    /// Topic.
    pub topic: String,
    /// Partitions; empty = all.
    pub partitions: Vec<i32>,
}

/// Reads one.
pub fn topic_partitions(text: &str) -> Result<TopicPartitions, String> {
    let (topic, list) = text.split_once(':').map_or((text, None), |(topic, list)| (topic, Some(list)));
    let number = |part: &str| match part.trim().parse::<i32>() {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err(format!("{text:?} is no topic with partitions; write orders or orders:0,1")),
    };
    if topic.is_empty() {
        return Err(format!("{text:?} names no topic; write orders or orders:0,1"));
    }
    let mut partitions =
        list.map_or(Ok(Vec::new()), |list| list.split(',').map(number).collect::<Result<Vec<i32>, _>>())?;
    partitions.sort_unstable();
    partitions.dedup();
    Ok(TopicPartitions { topic: topic.to_string(), partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_with_and_without_partitions() {
        let read = |text: &str| topic_partitions(text).map(|read| (read.topic, read.partitions));
        assert_eq!(read("orders"), Ok(("orders".into(), vec![])));
        assert_eq!(read("orders:2,0,2"), Ok(("orders".into(), vec![0, 2])));
        for wrong in ["", ":1", "orders:", "orders:-1", "orders:a", "orders:1:2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
