#!/bin/bash
# Writes server.properties from the environment, formats the log directory once, and becomes the broker.
set -eu
properties=/tmp/server.properties
env | grep '^KAFKA_' | grep -v -e '^KAFKA_HEAP_OPTS' | while IFS='=' read -r name value; do
    name=${name#KAFKA_}
    name=${name,,}
    echo "${name//_/.}=$value"
done >"$properties"
java="java ${KAFKA_HEAP_OPTS:-} -cp /opt/kafka/libs/*"
set -f
$java kafka.tools.StorageTool format --ignore-formatted -t MkU3OEVBNTcwNTJENDM2Qg -c "$properties"
exec $java kafka.Kafka "$properties"
