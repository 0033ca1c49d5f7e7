#!/bin/sh
# librdkafka's 0016 reads a broker's JMX values with it; it calls it only with the port of one, and a broker here has none.
echo "kafka-run-class.sh: $1 is not available; only kafka-topics.sh and kafka-acls.sh have stand-ins" >&2
exit 1
