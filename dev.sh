#!/usr/bin/env bash
# The one script a developer needs: servers, tests, benchmarks, the first steps of a new user.
#
#   ./dev.sh quickstart    a real PostgreSQL, its changes in Redis and on the terminal
#   ./dev.sh test          every test, against real servers
#   ./dev.sh help          all commands
#
# It works on a bare Debian 12 with only cargo/rustup, as root or as a user who has sudo. Everything it makes lies in one
# folder outside the clone, because the servers refuse to run as root and their unprivileged user may not be able to read
# the clone. crates/testkit/src/servers/binaries.rs follows the same rule for that folder and for the server user.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$ROOT"

DEV=${DELTAFORGE_DEV_DIR:-/var/tmp/deltaforge-dev-$(id -u)}
SERVER_USER=deltaforge-dev
PG_PORT=15432
REDIS_PORT=16379
MYSQL_PORT=13306
API_PORT=18080
METRICS_PORT=19000
# The password matters to the container only: the local server trusts the loopback. One DSN then serves both.
PG_DSN_DEFAULT="postgres://postgres:postgres@127.0.0.1:$PG_PORT/shop"
MYSQL_DSN_DEFAULT="mysql://root:mysql@127.0.0.1:$MYSQL_PORT/shop"
PG15_BIN=${DELTAFORGE_PG15_BIN:-/usr/lib/postgresql/15/bin}
PG18_BIN=${DELTAFORGE_PG18_BIN:-$DEV/sid/root/usr/lib/postgresql/18/bin}
# The server and its clients are in different folders, as distributions have it: FOLDER:FOLDER.
MYSQL_BIN=${DELTAFORGE_MYSQL_BIN:-$DEV/sid/root/usr/sbin:$DEV/sid/root/usr/bin}
MARIADB_BIN=${DELTAFORGE_MARIADB_BIN:-/usr/sbin:/usr/bin}
# Raised whenever the recipe below changes, so that an older folder is made anew.
SID_RECIPE=2
KAFKA_VERSION=4.1.0
KAFKA_RECIPE=$KAFKA_VERSION-1
KAFKA_LIBS=${DELTAFORGE_KAFKA_LIBS:-$DEV/kafka/libs}

# From g++ on: librdkafka, which is built from source against the system's OpenSSL, curl and zlib.
BUILD_PACKAGES=(gcc libc6-dev pkg-config ca-certificates g++ cmake make libssl-dev zlib1g-dev libcurl4-openssl-dev)
SERVER_PACKAGES=(postgresql-15 postgresql-client-15 redis-server redis-tools patchelf util-linux)
# The packages without a service: `mariadb-server` would start a server of its own.
MARIADB_PACKAGES=(mariadb-server-core mariadb-client-core mariadb-client)
KAFKA_PACKAGES=(maven openjdk-17-jre-headless)

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
warn() { printf '\033[1;33m!!! %s\033[0m\n' "$*" >&2; }
die() { printf '\033[1;31mdev.sh: %s\033[0m\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this needs root and there is no sudo; run as root: $*"
  fi
}

# In front of a server or one of its tools: what makes it run as the user the servers run as.
AS_SERVER_USER=()
if [ "$(id -u)" = 0 ]; then
  AS_SERVER_USER=(setpriv --reuid="$SERVER_USER" --regid="$SERVER_USER" --clear-groups --)
fi
as_server_user() { "${AS_SERVER_USER[@]}" "$@"; }

# --- setup --------------------------------------------------------------------------------------------------------------

APT=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600)

need_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "not a Debian machine: please install what corresponds to: ${missing[*]}"
  say "installing ${missing[*]}"
  # One unreachable third-party source must not stop us: the install that follows tells whether ours was refreshed.
  as_root "${APT[@]}" update >&2 || warn "apt-get update reported errors; going on"
  # Whatever stands in the way of ours is somebody's own.
  as_root "${APT[@]}" install -y --no-install-recommends --no-remove "${missing[@]}" >&2
}

setup_toolchain() {
  if ! command -v cargo >/dev/null; then
    [ -x "$HOME/.cargo/bin/cargo" ] || die "cargo is missing: install Rust with rustup first"
    PATH=$HOME/.cargo/bin:$PATH
  fi
  command -v rustup >/dev/null || return 0
  local channel
  channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
  if ! rustup run "$channel" rustc --version >/dev/null 2>&1; then
    say "installing Rust $channel"
    rustup toolchain install "$channel" --profile minimal >&2
  fi
  local tool
  for tool in rustfmt clippy; do
    rustup component list --toolchain "$channel" --installed 2>/dev/null | grep -q "^$tool" && continue
    rustup component add --toolchain "$channel" "$tool" >&2 || warn "rustup could not add $tool: its checks will be left out"
  done
}

setup_build() {
  if command -v dpkg-query >/dev/null; then need_packages "${BUILD_PACKAGES[@]}"; fi
  setup_toolchain
}

# The folder is in a place that everyone may write to, so one that another user prepared for us is refused.
setup_folder() {
  mkdir -p "$DEV"
  [ -O "$DEV" ] || die "$DEV belongs to another user; set DELTAFORGE_DEV_DIR to a folder of your own"
  chmod 755 "$DEV"
  if [ "$(id -u)" = 0 ] && ! id "$SERVER_USER" >/dev/null 2>&1; then
    say "adding the user $SERVER_USER, as PostgreSQL refuses to run as root"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$SERVER_USER"
  fi
}

program() { # program NAME FOLDER:FOLDER…
  local folder folders
  IFS=: read -ra folders <<<"$2"
  for folder in "${folders[@]}"; do
    if [ -x "$folder/$1" ]; then echo "$folder/$1"; return 0; fi
  done
  return 1
}

# An apt that knows only what FOLDER/etc/sources.list will say, and nothing of the system's packages. Sets `options` and `mirror`.
apt_of_its_own() { # apt_of_its_own FOLDER
  local f=$1 codename
  # shellcheck source=/dev/null
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
  # shellcheck disable=SC2016 # apt fills these in, not the shell
  mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v c="$codename" '($1 == c || $1 == "stable") && $2 == "main" { print $3; exit }')
  [ -n "$mirror" ] || die "apt knows no mirror of Debian $codename main; see 'apt-get indextargets'"
  mkdir -p "$f"/{etc,state/lists/partial,cache/archives/partial,log}
  touch "$f/state/status"
  options=(
    -o Dir::Etc::sourcelist="$f/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State="$f/state" -o Dir::State::status="$f/state/status"
    -o Dir::Cache="$f/cache" -o Dir::Log="$f/log" -o APT::Sandbox::User=root -o Acquire::Languages=none
    # A mirror that lags some days serves a test server as well. Signatures are checked all the same.
    -o Acquire::Check-Valid-Until=false
  )
}

# PostgreSQL 18 is newer than Debian 12, which has no MySQL at all. Their packages from Debian's unstable suite are
# unpacked, with the libc that they want, into a folder; the system and its apt state stay as they are. The mirror is the
# one that apt already uses.
setup_sid() {
  local sid=$DEV/sid wanted=() mysql=() left_out=''
  [ -n "${DELTAFORGE_PG18_BIN:-}" ] || wanted+=(postgresql-18 postgresql-client-18)
  [ -n "${DELTAFORGE_MYSQL_BIN:-}" ] || mysql+=(mysql-server-core mysql-client-core mysql-client)
  [ ${#wanted[@]} -gt 0 ] || [ ${#mysql[@]} -gt 0 ] || return 0
  unpacked() {
    [ "$(cat "$sid/recipe" 2>/dev/null)" = "$SID_RECIPE" ] || return 1
    [ ${#wanted[@]} = 0 ] || [ -x "$PG18_BIN/postgres" ] || return 1
    [ ${#mysql[@]} = 0 ] || [ -f "$sid/mysql-left-out" ] || program mysqld "$MYSQL_BIN" >/dev/null
  }
  if unpacked; then return 0; fi

  local mirror suites suite options deb file
  say "unpacking PostgreSQL 18 and MySQL into $sid"
  rm -rf "$sid"
  apt_of_its_own "$sid"
  mkdir -p "$sid/root"
  known() {
    local package
    for package in "$@"; do apt-cache "${options[@]}" show "$package" >/dev/null 2>&1 || return 1; done
  }
  fetch() { [ $# = 0 ] || "${APT[@]}" "${options[@]}" install -y --no-install-recommends --download-only "$@" >&2; }
  # The suite moves: what unstable has dropped, testing may still have.
  for suites in sid 'sid testing'; do
    for suite in $suites; do
      echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$sid/etc/sources.list"
    "${APT[@]}" "${options[@]}" update >&2
    if known "${wanted[@]}" "${mysql[@]}"; then break; fi
  done
  known "${wanted[@]}" ||
    die "neither sid nor testing has postgresql-18 any more; set DELTAFORGE_PG18_BIN to its bin folder"
  if [ ${#mysql[@]} -gt 0 ]; then
    # The one server that may be missing: no release of Debian promises to have it.
    if ! known "${mysql[@]}"; then
      left_out='neither sid nor testing of Debian has its packages'
    elif ! fetch "${wanted[@]}" "${mysql[@]}"; then
      left_out='its packages of Debian sid cannot be installed at present'
    fi
  fi
  if [ ${#mysql[@]} = 0 ] || [ -n "$left_out" ]; then fetch "${wanted[@]}"; fi

  local r=$sid/root d
  for d in lib lib64 bin sbin; do mkdir -p "$r/usr/$d"; ln -sfn "usr/$d" "$r/$d"; done
  for deb in "$sid"/cache/archives/*.deb; do
    case $deb in *perl*) continue ;; esac
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$r" --keep-directory-symlink --no-same-owner
  done
  chmod -R u+rwX,a+rX "$r"
  rm -rf "$sid/cache" "$sid/state"

  # PostgreSQL's tools start each other, so each binary must find its own loader and libraries by itself.
  local loader libraries
  loader=$(find "$r/usr/lib" "$r/usr/lib64" -name 'ld-linux-*.so.*' | head -n 1)
  libraries=$(dirname "$(find "$r/usr/lib" -name 'libc.so.6' | head -n 1)")
  if [ -z "$loader" ] || [ ! -d "$libraries" ]; then die "the unpacked packages hold no libc; please report this"; fi
  for file in "$r"/usr/lib/postgresql/18/bin/* "$r"/usr/sbin/mysqld "$r"/usr/bin/mysql*; do
    if [ -f "$file" ] && [ ! -L "$file" ] && [ "$(head -c 4 "$file" | tail -c 3)" = ELF ]; then
      patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$file"
    fi
  done
  if [ ${#wanted[@]} -gt 0 ]; then "$PG18_BIN/postgres" --version >&2; fi
  if [ ${#mysql[@]} -gt 0 ] && [ -z "$left_out" ] && ! "$r/usr/sbin/mysqld" --no-defaults --version >&2; then
    left_out='the server of Debian sid does not run on this machine'
  fi
  if [ -n "$left_out" ]; then
    # The tests go without MySQL if, and only if, they find this note and no server.
    rm -f "$r/usr/sbin/mysqld"
    echo "$left_out" >"$sid/mysql-left-out"
  fi
  echo "$SID_RECIPE" >"$sid/recipe"
}

# MariaDB's plug-ins (the login method ed25519 is one) are in the package that would start a server: only they are taken
# out of it.
setup_mariadb() {
  [ -z "${DELTAFORGE_MARIADB_BIN:-}" ] || return 0
  need_packages "${MARIADB_PACKAGES[@]}"
  local d=$DEV/mariadb version
  version=$(dpkg-query -W -f '${Version}' mariadb-server-core)
  if [ "$(cat "$d/version" 2>/dev/null)" = "$version" ]; then return 0; fi
  say "unpacking MariaDB's plug-ins into $d"
  rm -rf "$d"
  mkdir -p "$d/package"
  (
    cd "$d/package"
    download() { "${APT[@]}" -o APT::Sandbox::User=root download "$1" >&2; }
    # A mirror keeps only the newest; plug-ins of the same series serve as well.
    download "mariadb-server=$version" || download mariadb-server
    dpkg-deb --fsys-tarfile ./*.deb | tar -x --no-same-owner --wildcards './usr/lib/mysql/plugin/*.so'
  )
  mv "$d/package/usr/lib/mysql/plugin" "$d/plugin"
  chmod -R u+rwX,a+rX "$d"
  rm -rf "$d/package"
  echo "$version" >"$d/version"
}

# Kafka is in no distribution: its jars come from Maven Central, or the mirror that Maven is configured for here.
setup_kafka() {
  [ -z "${DELTAFORGE_KAFKA_LIBS:-}" ] || return 0
  need_packages "${KAFKA_PACKAGES[@]}"
  local d=$DEV/kafka
  if [ "$(cat "$d/recipe" 2>/dev/null)" = "$KAFKA_RECIPE" ]; then return 0; fi
  say "fetching Kafka $KAFKA_VERSION into $d"
  rm -rf "$d"
  mkdir -p "$d"
  cat >"$d/pom.xml" <<XML
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>deltaforge</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
  (cd "$d" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime >&2) ||
    die "Maven could not fetch Kafka; set DELTAFORGE_KAFKA_LIBS to the libs folder of a Kafka $KAFKA_VERSION"
  # Two bindings of one logging interface would quarrel at each start.
  rm -f "$d"/libs/log4j-slf4j*.jar "$d"/libs/slf4j-reload4j*.jar
  chmod -R a+rX "$d"
  echo "$KAFKA_RECIPE" >"$d/recipe"
}

# NATS is one binary that any libc since 2.34 runs, so it is taken out of its packages, which would start a service: the
# distribution's (2.9 on Debian 12), and sid's, which has atomic batches.
setup_nats() {
  local d=$DEV/nats mirror options
  if [ -x "${DELTAFORGE_NATS_BIN:-$d/newest}/nats-server" ] && [ -x "${DELTAFORGE_NATS29_BIN:-$d/2.9}/nats-server" ]; then
    return 0
  fi
  say "unpacking NATS into $d"
  rm -rf "$d"
  mkdir -p "$d/newest" "$d/2.9" "$d/apt"
  apt_of_its_own "$d/apt"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$d/apt/etc/sources.list"
  take() { # take FOLDER [apt options]
    local to=$1; shift
    "${APT[@]}" -o APT::Sandbox::User=root "$@" download nats-server >&2
    dpkg-deb --fsys-tarfile ./nats-server_*.deb |
      tar -x -C "$to" --no-same-owner --strip-components=3 ./usr/sbin/nats-server
    rm -f ./nats-server_*.deb
  }
  (
    cd "$d/apt"
    take ../2.9
    "${APT[@]}" "${options[@]}" update >&2
    take ../newest "${options[@]}"
  )
  rm -rf "$d/apt"
  chmod -R u+rwX,a+rX "$d"
}

setup_servers() {
  need_packages "${SERVER_PACKAGES[@]}"
  setup_folder
  # Two checkouts may set up at once; the second then finds the work done.
  exec 9>"$DEV/setup.lock"
  flock 9
  setup_sid
  setup_mariadb
  setup_kafka
  setup_nats
  exec 9>&-
  [ -x "$PG15_BIN/postgres" ] || die "no PostgreSQL 15 in $PG15_BIN: Debian 12 has it; elsewhere set DELTAFORGE_PG15_BIN"
  program mariadbd "$MARIADB_BIN" >/dev/null ||
    die "no MariaDB in $MARIADB_BIN: Debian 12 has it; elsewhere set DELTAFORGE_MARIADB_BIN"
  if ! program mysqld "$MYSQL_BIN" >/dev/null; then
    [ -z "${DELTAFORGE_MYSQL_BIN:-}" ] || die "no MySQL in $MYSQL_BIN, which DELTAFORGE_MYSQL_BIN names"
    warn "SKIPPED: MySQL: $(cat "$DEV/sid/mysql-left-out"). Its tests will say so; the others run."
    warn "         Set DELTAFORGE_MYSQL_BIN to its folder, or try again after: rm -r $DEV/sid"
  fi
}

# What a server says of its version, without the path in front.
mysql_version() { "$1" --no-defaults --version | sed 's/.*Ver \([^ ]*\).*/\1/'; }

cmd_setup() {
  setup_build
  setup_servers
  local server mysql_found='no MySQL'
  if server=$(program mysqld "$MYSQL_BIN"); then mysql_found="MySQL $(mysql_version "$server")"; fi
  say "ready: $("$PG15_BIN/postgres" --version), $("$PG18_BIN/postgres" --version), $mysql_found," \
    "MariaDB $(mysql_version "$(program mariadbd "$MARIADB_BIN")"), $(redis-server --version | cut -d' ' -f1-3)," \
    "$("${DELTAFORGE_NATS_BIN:-$DEV/nats/newest}/nats-server" --version)," \
    "$("${DELTAFORGE_NATS29_BIN:-$DEV/nats/2.9}/nats-server" --version)"
}

# --- the development stack ----------------------------------------------------------------------------------------------

have_docker() {
  [ -z "${DELTAFORGE_NO_DOCKER:-}" ] && command -v docker >/dev/null &&
    timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

compose() { docker compose -f docker-compose.dev.yml "$@"; }

sql() { # sql DATABASE [psql arguments]; statements from standard input
  local database=$1; shift
  if have_docker; then
    compose exec -T postgres psql -X -q -v ON_ERROR_STOP=1 -U postgres -d "$database" "$@"
  else
    "$PG15_BIN/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PG_PORT" -U postgres -d "$database" "$@"
  fi
}

redis() {
  if have_docker; then compose exec -T redis redis-cli "$@"; else redis-cli -p "$REDIS_PORT" "$@"; fi
}

# MySQL, or MariaDB on a machine that cannot have MySQL.
mysql_flavour() { if program mysqld "$MYSQL_BIN" >/dev/null; then echo mysql; else echo mariadb; fi; }
mysql_folder() { echo "$DEV/up/$(mysql_flavour)"; }
mysql_client() {
  case $(mysql_flavour) in
    mysql) program mysql "$MYSQL_BIN" ;;
    mariadb) program mariadb "$MARIADB_BIN" ;;
  esac
}

mysql_sql() { # mysql_sql [arguments of the client]; statements from standard input
  if have_docker; then
    compose exec -T -e MYSQL_PWD=mysql mysql mysql --user=root "$@"
  else
    "$(mysql_client)" --no-defaults --user=root --socket="$(mysql_folder)/socket" "$@"
  fi
}

eventually() { # eventually SECONDS WHAT COMMAND...
  local deadline=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || die "gave up waiting for $what"
    sleep 0.1
  done
}

answers_sql() { echo 'select 1' | sql postgres; }
answers_redis() { [ "$(redis ping)" = PONG ]; }
answers_mysql() { echo 'select 1' | mysql_sql >/dev/null 2>&1; }
pg_runs() { (cd / && as_server_user "$PG15_BIN/pg_ctl" -D "$DEV/up/postgres" status >/dev/null 2>&1); }
# The pid of a file may have been given to another process since: it is ours only if it works in our folder.
pid_in() { # pid_in FILE FOLDER
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 1
  [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$2")" ] && echo "$pid"
}
redis_pid() { pid_in "$DEV/up/redis/redis.pid" "$DEV/up/redis"; }
mysql_pid() { pid_in "$(mysql_folder)/pid" "$(mysql_folder)/data"; }

up_local() {
  local d=$DEV/up
  mkdir -p "$d/postgres" "$d/redis"
  if [ "$(id -u)" = 0 ]; then chown "$SERVER_USER:" "$d" "$d/postgres" "$d/redis"; fi
  (
    cd "$d"
    if [ ! -f postgres/PG_VERSION ]; then
      as_server_user "$PG15_BIN/initdb" -D "$d/postgres" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
    fi
    if ! pg_runs; then
      as_server_user "$PG15_BIN/pg_ctl" -D "$d/postgres" -w -s -l "$d/postgres/server.log" -o "-p $PG_PORT \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c wal_level=logical \
        -c max_wal_senders=20 -c max_replication_slots=20" start >&2 ||
        { tail -n 20 "$d/postgres/server.log" >&2; die "PostgreSQL did not start (is port $PG_PORT taken?)"; }
    fi
    if ! redis_pid >/dev/null; then
      as_server_user redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --save "" --appendonly yes --dir "$d/redis" \
        --daemonize yes --pidfile "$d/redis/redis.pid" --logfile "$d/redis/redis.log" >&2
    fi
  )
  eventually 20 "Redis on port $REDIS_PORT (see $d/redis/redis.log)" redis_pid
}

up_mysql_local() {
  local d server base args
  d=$(mysql_folder)
  if mysql_pid >/dev/null; then return 0; fi
  mkdir -p "$d"
  if [ "$(id -u)" = 0 ]; then chown "$SERVER_USER:" "$d"; fi
  case $(mysql_flavour) in
    mysql) server=$(program mysqld "$MYSQL_BIN") ;;
    mariadb) server=$(program mariadbd "$MARIADB_BIN") ;;
  esac
  base=$(dirname "$(dirname "$server")")
  args=(--basedir="$base")
  if [ -f "$base/share/mysql/english/errmsg.sys" ]; then args+=(--lc-messages-dir="$base/share/mysql"); fi
  case $(mysql_flavour) in
    mysql)
      # Debian's default for the first is a folder that does not exist here.
      args+=(--secure-file-priv= --mysqlx=OFF)
      if [ -d "$base/lib/mysql/plugin" ]; then args+=(--plugin-dir="$base/lib/mysql/plugin"); fi
      ;;
    mariadb) if [ -d "$DEV/mariadb/plugin" ]; then args+=(--plugin-dir="$DEV/mariadb/plugin"); fi ;;
  esac
  (
    cd "$d"
    if [ ! -d data ]; then
      rm -rf data.new
      case $(mysql_flavour) in
        mysql) as_server_user "$server" --no-defaults --datadir="$d/data.new" "${args[@]}" --initialize-insecure ;;
        mariadb)
          as_server_user "$(program mariadb-install-db "$MARIADB_BIN")" --no-defaults --datadir="$d/data.new" \
            "${args[@]}" --auth-root-authentication-method=normal --skip-test-db
          ;;
      esac >"$d/log" 2>&1 || { tail -n 20 "$d/log" >&2; die "MySQL's data folder was not made"; }
      mv data.new data
    fi
  )
  case $(mysql_flavour) in
    mysql) args+=(--gtid-mode=ON --enforce-gtid-consistency=ON) ;;
    mariadb) args+=(--gtid-strict-mode=ON --log-slave-updates=ON) ;;
  esac
  # In a session of its own, as it is to outlive this shell and the terminal.
  (
    cd "$d"
    exec "${AS_SERVER_USER[@]}" setsid "$server" --no-defaults --datadir="$d/data" "${args[@]}" --socket="$d/socket" \
      --pid-file="$d/pid" --port="$MYSQL_PORT" --bind-address=127.0.0.1 --server-id=1 --log-bin=bin \
      --binlog-format=ROW --binlog-row-image=FULL --binlog-row-metadata=FULL --character-set-server=utf8mb4 \
      --skip-name-resolve
  ) >>"$d/log" 2>&1 </dev/null &
  local job=$!
  answers_or_ended() { answers_mysql || ! kill -0 "$job"; }
  eventually 60 "MySQL on port $MYSQL_PORT (see $d/log)" answers_or_ended
  answers_mysql || { tail -n 20 "$d/log" >&2; die "MySQL did not start (is port $MYSQL_PORT taken?)"; }
  # As the container's: `root` with a password, from everywhere. On the socket it needs none. MariaDB makes more users.
  mysql_sql <<'SQL'
drop user if exists ''@'localhost', root@'127.0.0.1', root@'::1';
create user if not exists root@'%' identified by 'mysql';
grant all on *.* to root@'%' with grant option;
SQL
}

up_mysql() {
  if have_docker; then compose up -d --wait mysql; else up_mysql_local; fi
  eventually 60 "MySQL on port $MYSQL_PORT" answers_mysql
  echo 'create database if not exists shop' | mysql_sql
  mysql_sql shop <examples/shop-mysql.sql
}

cmd_up() {
  up_stack
  up_mysql
  cmd_ps
}

# What the quickstart needs.
up_stack() {
  if have_docker; then
    say "starting the stack with Docker"
    compose up -d --wait postgres redis
  else
    setup_servers
    say "starting the stack from packages (no Docker engine answers)"
    up_local
  fi
  eventually 60 "PostgreSQL on port $PG_PORT" answers_sql
  eventually 60 "Redis on port $REDIS_PORT" answers_redis
  if [ -z "$(echo "select 1 from pg_database where datname = 'shop'" | sql postgres -At)" ]; then
    echo 'create database shop' | sql postgres
  fi
  sql shop <examples/shop.sql
}

cmd_down() {
  if have_docker; then
    compose down "$@"
    return
  fi
  local pid
  if pg_runs; then (cd / && as_server_user "$PG15_BIN/pg_ctl" -D "$DEV/up/postgres" -s -w -m fast stop); fi
  if pid=$(redis_pid); then
    kill "$pid"
    eventually 20 "Redis to stop" test ! -d "/proc/$pid"
  fi
  if pid=$(mysql_pid); then
    kill "$pid"
    eventually 60 "MySQL to stop" test ! -d "/proc/$pid"
  fi
  # The same flag as Docker's: the data goes too.
  if [ "${1:-}" = -v ]; then rm -rf "$DEV/up" "$DEV/quickstart"; fi
  say "stopped"
}

cmd_ps() {
  if have_docker; then
    compose ps
  else
    if pg_runs; then echo "postgres  up    $PG_DSN_DEFAULT"; else echo "postgres  down"; fi
    if mysql_pid >/dev/null; then echo "mysql     up    $MYSQL_DSN_DEFAULT"; else echo "mysql     down"; fi
    if redis_pid >/dev/null; then echo "redis     up    redis://127.0.0.1:$REDIS_PORT"; else echo "redis     down"; fi
  fi
}

# --- checks -------------------------------------------------------------------------------------------------------------

cmd_lint() {
  if cargo fmt --version >/dev/null 2>&1; then
    say "cargo fmt --check"
    cargo fmt --all --check
  else
    warn "NOT CHECKED: formatting (rustfmt is missing: rustup component add rustfmt)"
  fi
  if cargo clippy --version >/dev/null 2>&1; then
    say "cargo clippy"
    cargo clippy --workspace --all-targets -- -D warnings
  else
    warn "NOT CHECKED: lints (clippy is missing: rustup component add clippy)"
  fi
  if cargo deny --version >/dev/null 2>&1; then
    say "cargo deny"
    # Advisories are left to `cargo deny check`: they come from the network and change without a change of ours.
    cargo deny check bans licenses sources
  else
    warn "NOT CHECKED: licences and banned crates (cargo-deny is missing: cargo install --locked cargo-deny)"
  fi
}

# shellcheck disable=SC2120 # arguments come from the command line
cmd_test() {
  setup_build
  setup_servers
  say "cargo test"
  cargo test --workspace "$@"
}

# The examples in the documentation and in examples/ are read by tests of the workspace: the test step covers them.
cmd_check() {
  setup_build
  cmd_lint
  cmd_test
}

cmd_bench() {
  setup_build
  setup_servers
  cargo run --release -p deltaforge-testkit --bin bench -- "$@"
}

cmd_soak() {
  setup_build
  setup_servers
  DELTAFORGE_SOAK=1 cargo test --workspace "$@"
}

# --- quickstart ---------------------------------------------------------------------------------------------------------

# A little life in the shop: every round is one insert, one update and, now and then, one delete.
shop_round() {
  sql shop <<'SQL'
insert into public.orders (customer_id, item, quantity, total)
select id, (array['tea','coffee','cocoa'])[1 + (random() * 2)::int], 1 + (random() * 4)::int, (random() * 90 + 10)::numeric(10, 2)
from public.customers order by random() limit 1;
update public.orders set status = 'paid' where id = (select max(id) from public.orders);
delete from public.orders where id < (select max(id) from public.orders) - 20;
SQL
}

slot_active() {
  [ "$(echo "select active from pg_replication_slots where slot_name = 'deltaforge_shop'" | sql shop -At)" = t ]
}

FORGE_PID=
VIEW_PID=
quickstart_stop() {
  local code=0
  if [ -n "$FORGE_PID" ]; then
    kill -TERM "$FORGE_PID" 2>/dev/null || true
    wait "$FORGE_PID" || code=$?
    FORGE_PID=
  fi
  if [ -n "$VIEW_PID" ]; then
    kill "$VIEW_PID" 2>/dev/null || true
    wait "$VIEW_PID" 2>/dev/null || true
    VIEW_PID=
  fi
  return $code
}

cmd_quickstart() {
  local once='' want=6
  case "${1:-}" in
    '') ;;
    --once) once=1 ;;
    *) die "quickstart takes no argument but --once" ;;
  esac
  if [ -n "${PG_DSN:-}${REDIS_URI:-}" ]; then
    # The changes are made in, and looked up on, the stack of `up`: with other servers nothing would be seen.
    warn "PG_DSN and REDIS_URI are left aside: the quickstart uses its own servers"
    unset PG_DSN REDIS_URI
  fi

  setup_build
  up_stack
  say "building deltaforge"
  cargo build -p runner
  local binary=${CARGO_TARGET_DIR:-target}/debug/deltaforge
  local d=$DEV/quickstart
  setup_folder
  mkdir -p "$d"
  : >"$d/events.jsonl"

  local before
  before=$(redis XLEN shop)
  say "starting: $binary --config examples/quickstart.yaml   (logs: $d/deltaforge.log)"
  trap 'quickstart_stop || true' EXIT
  # In a process group of its own: Ctrl-C would otherwise reach it beside our own signal, and a second signal means
  # "at once, without draining".
  set -m
  "$binary" --config examples/quickstart.yaml --state "file:$d/state" \
    --api-addr "127.0.0.1:$API_PORT" --metrics-addr "127.0.0.1:$METRICS_PORT" \
    >"$d/events.jsonl" 2>"$d/deltaforge.log" &
  FORGE_PID=$!

  ready_or_dead() { slot_active || ! kill -0 "$FORGE_PID"; }
  eventually 60 "deltaforge to read the slot (see $d/deltaforge.log)" ready_or_dead
  if ! kill -0 "$FORGE_PID" 2>/dev/null; then
    cat "$d/deltaforge.log" >&2
    die "deltaforge ended early, see its log above"
  fi

  say "changes of public.orders, as they arrive on standard output:"
  tail -n +1 -f "$d/events.jsonl" &
  VIEW_PID=$!
  set +m
  if [ -z "$once" ]; then
    trap 'exit 0' INT TERM
    say "a change every two seconds; look around with the following, end with Ctrl-C"
    cat >&2 <<TEXT
      redis-cli -p $REDIS_PORT XRANGE shop - + COUNT 5
      psql "$PG_DSN_DEFAULT"
      curl http://127.0.0.1:$API_PORT/pipelines
TEXT
    while kill -0 "$FORGE_PID" 2>/dev/null; do
      shop_round
      sleep 2
    done
    die "deltaforge ended, see $d/deltaforge.log"
  fi

  while [ $want -gt 0 ]; do
    shop_round
    want=$((want - 2))
  done
  want=6
  arrived_on_terminal() { [ "$(grep -c '"op"' "$d/events.jsonl")" -ge "$want" ]; }
  arrived_in_redis() { [ "$(redis XLEN shop)" -ge $((before + want)) ]; }
  eventually 60 "$want changes on standard output" arrived_on_terminal
  eventually 60 "$want changes in Redis" arrived_in_redis
  say "the same changes in Redis (XRANGE shop):"
  redis XREVRANGE shop + - COUNT 2
  quickstart_stop || die "deltaforge did not stop cleanly, see $d/deltaforge.log"
  trap - EXIT
  say "quickstart: $(grep -c '"op"' "$d/events.jsonl") changes on the terminal, $(($(redis XLEN shop) - before)) in Redis"
}

cmd_help() {
  cat <<TEXT
usage: ./dev.sh COMMAND

  quickstart [--once]   set up, start PostgreSQL and Redis, build and run deltaforge, make changes and show them arrive
                        (--once: end after a few changes)
  test [ARGS]           set up if needed, then cargo test --workspace ARGS
  check                 formatting, lints, tests, documentation examples
  lint                  formatting, lints, licences only
  bench [pg|mysql|sinks] [--rows N] [--reps N] …
                        the benchmarks, against real servers, in a release build; sinks: [--into redis,kafka,nats]
                        [--partitions 1,6] [--batch YAML] [--skip-default-batch]
  soak                  the tests in their long variants
  setup                 install what is missing: build tools, PostgreSQL 15 and 18, MySQL, MariaDB, Redis, Kafka, NATS; quick when
                        nothing is
  up, down [-v], ps     the development stack: Docker when an engine answers, else from packages
                        PostgreSQL on 127.0.0.1:$PG_PORT and MySQL on 127.0.0.1:$MYSQL_PORT (databases shop; MariaDB
                        on a machine that cannot have MySQL), Redis on 127.0.0.1:$REDIS_PORT
  help                  this text

Environment: DELTAFORGE_DEV_DIR (where servers and their data live; now $DEV), DELTAFORGE_NO_DOCKER=1,
DELTAFORGE_PG15_BIN, DELTAFORGE_PG18_BIN, DELTAFORGE_REDIS_BIN, DELTAFORGE_NATS_BIN,
DELTAFORGE_NATS29_BIN (folders with the binaries to use instead),
DELTAFORGE_MYSQL_BIN, DELTAFORGE_MARIADB_BIN (the same; FOLDER:FOLDER where server and clients are apart),
DELTAFORGE_KAFKA_LIBS (a folder with the jars of a Kafka).
TEXT
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
  setup | up | down | ps | check | lint | test | bench | soak | quickstart | help) "cmd_$command" "$@" ;;
  -h | --help) cmd_help ;;
  *) cmd_help >&2; die "unknown command: $command" ;;
esac
