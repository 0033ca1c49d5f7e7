//! ApiVersions (key 18, KIP-35, KIP-511): what this broker serves.

use bytes::Bytes;
use pelton_wire::api_key::{ApiKey, SUPPORTED};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    ApiVersion, ApiVersionsRequestData, ApiVersionsResponseData, FinalizedFeatureKey, KafkaString,
    SupportedFeatureKey,
};

use super::context::ApiContext;

/// `metadata.version` of Kafka 4.3 (its feature level 30): tools tell the release by it. Transactions of version 2 and
/// the share and streams features are not named: clients would switch to protocols that are not served.
const METADATA_VERSION: i16 = 30;
/// Lowest metadata version of a KRaft cluster; never 0, which clients before version 4 of this API cannot read.
const METADATA_VERSION_MIN: i16 = 7;

/// `group.version` 1: the consumer group protocol of KIP-848.
const GROUP_VERSION: i16 = 1;
/// Clients before this version of the API cannot read a feature whose lowest level is 0; Kafka leaves it out for them
/// (KAFKA-17492).
const LEVEL_0_VERSION: i16 = 4;

/// The answer.
pub fn handle(
    context: &ApiContext<'_>,
    version: i16,
    request: ApiVersionsRequestData,
) -> ApiVersionsResponseData {
    if version >= 3 {
        let named = |text: &str| is_software(text);
        if !named(request.client_software_name.as_str()) || !named(request.client_software_version.as_str()) {
            return ApiVersionsResponseData {
                error_code: ErrorCode::InvalidRequest.code(),
                ..ApiVersionsResponseData::default()
            };
        }
    }
    let mut response = ApiVersionsResponseData {
        api_keys: SUPPORTED
            .iter()
            .filter_map(|range| {
                Some(ApiVersion {
                    api_key: range.api_key.code(),
                    min_version: range.advertised_min?,
                    max_version: range.max,
                    ..ApiVersion::default()
                })
            })
            .collect(),
        ..ApiVersionsResponseData::default()
    };
    if version >= 3 {
        let supported = |name, min_version, max_version| SupportedFeatureKey {
            name: KafkaString::from_static(name),
            min_version,
            max_version,
            ..SupportedFeatureKey::default()
        };
        let finalized = |name, level| FinalizedFeatureKey {
            name: KafkaString::from_static(name),
            max_version_level: level,
            min_version_level: level,
            ..FinalizedFeatureKey::default()
        };
        response.supported_features =
            vec![supported("metadata.version", METADATA_VERSION_MIN, METADATA_VERSION)];
        if version >= LEVEL_0_VERSION {
            response.supported_features.push(supported("group.version", 0, GROUP_VERSION));
        }
        response.finalized_features_epoch = context.image.applied_offset() as i64;
        response.finalized_features =
            vec![finalized("group.version", GROUP_VERSION), finalized("metadata.version", METADATA_VERSION)];
    }
    response
}

/// The answer to a version that is not served: in version 0, so that any client can read it, naming only this API.
pub fn unsupported_version(correlation_id: i32) -> Bytes {
    let range = ApiKey::ApiVersions.range();
    let response = ApiVersionsResponseData {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![ApiVersion {
            api_key: ApiKey::ApiVersions.code(),
            min_version: range.min,
            max_version: range.max,
            ..ApiVersion::default()
        }],
        ..ApiVersionsResponseData::default()
    };
    super::encode_response(ApiKey::ApiVersions, 0, correlation_id, &response)
}

/// Kafka's pattern for a client's software: `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for good in ["a", "librdkafka", "2.0.2-rc.1", "9"] {
            assert!(is_software(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a_b", "ä"] {
            assert!(!is_software(bad), "{bad}");
        }
    }

    #[test]
    fn an_unknown_version_is_answered_in_version_0() {
        let bytes = unsupported_version(9);
        assert_eq!(&bytes[..], [0, 0, 0, 16, 0, 0, 0, 9, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    }
}
