# shellcheck shell=bash
# Where scripts/ensure-docker keeps what it knows of a dockerd that it started. One per machine, as the Engine is.
# shellcheck disable=SC2034  # used by those who source this
docker_run_dir=${HOMEPORT_DOCKER_RUN_DIR:-/run/homeport-docker}
docker_pid=$docker_run_dir/dockerd.pid
docker_log=/var/log/homeport-dockerd.log
