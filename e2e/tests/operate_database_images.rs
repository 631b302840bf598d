//! The PostgreSQL and Redis images of the cluster, run by Docker: the contract of the official images, as far as an
//! operator and its users rely on it. Where no registry answers they are our own, elsewhere the official ones themselves.
#![cfg(test)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use servicechain_e2e::cluster::Cluster;
use servicechain_fixtures::await_condition;

const START_DEADLINE: Duration = Duration::from_mins(1);
const PGDATA: &str = "/var/lib/postgresql/data/pgdata";

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story, from an empty volume to a restarted server"
)]
async fn postgres_is_set_up_by_variables_files_and_init_scripts_and_keeps_its_data() {
    let files = tempfile::tempdir().unwrap();
    write(files.path(), "password", "correct horse\n", 0o644);
    write(
        files.path(),
        "init/1.sql",
        "CREATE TABLE seen (step text); INSERT INTO seen VALUES ('sql');",
        0o644,
    );
    let script =
        "#!/bin/sh\npsql -U \"$POSTGRES_USER\" -d \"$POSTGRES_DB\" -c \"INSERT INTO seen VALUES ('sh')\"\n";
    write(files.path(), "init/2.sh", script, 0o755);
    write(
        files.path(),
        "init/3.sh",
        "docker_process_sql -c \"INSERT INTO seen VALUES ('sourced')\"\n",
        0o644,
    );
    write(
        files.path(),
        "init/4.sql",
        "INSERT INTO seen VALUES ('gz');",
        0o644,
    );
    let gzip = std::process::Command::new("gzip")
        .arg(files.path().join("init/4.sql"))
        .status();
    assert!(gzip.unwrap().success());

    let mount = |name: &str, to: &str| format!("{}:{to}:ro", files.path().join(name).display());
    let (init, password) = (
        mount("init", "/docker-entrypoint-initdb.d"),
        mount("password", "/run/password"),
    );
    let data = format!("PGDATA={PGDATA}");
    let postgres = Container::run(
        "postgres",
        &[
            "--volume",
            &init,
            "--volume",
            &password,
            "--env",
            "POSTGRES_PASSWORD_FILE=/run/password",
            "--env",
            "POSTGRES_USER=owner",
            "--env",
            "POSTGRES_DB=shop",
            "--env",
            &data,
            "--env",
            "POSTGRES_INITDB_ARGS=--data-checksums",
        ],
        &[],
    )
    .await;
    let query = async |password: &str, sql: &str| {
        let url = format!("postgresql://owner:{password}@127.0.0.1:5432/shop");
        postgres.exec(&["psql", &url, "-At", "-c", sql]).await
    };
    let right = "correct%20horse";
    let ready = async || query(right, "SELECT 1").await;
    await_condition("PostgreSQL to answer", START_DEADLINE, ready)
        .await
        .unwrap();

    assert_eq!(
        query(right, "SELECT string_agg(step, ' ') FROM seen")
            .await
            .unwrap(),
        "sql sh sourced gz"
    );
    assert_eq!(query(right, "SHOW data_checksums").await.unwrap(), "on");
    assert_eq!(
        query(right, "SHOW password_encryption").await.unwrap(),
        "scram-sha-256"
    );
    assert_eq!(query(right, "SHOW listen_addresses").await.unwrap(), "*");
    let address = postgres.inspect("{{.NetworkSettings.IPAddress}}").await;
    let wrong = format!("postgresql://owner:wrong@{address}:5432/shop");
    let refused = postgres
        .exec(&["psql", &wrong, "-c", "SELECT 1"])
        .await
        .unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");
    assert_eq!(
        postgres.exec(&["stat", "-c", "%u %a", PGDATA]).await.unwrap(),
        "999 700"
    );
    assert_eq!(
        postgres.exec(&["stat", "-c", "%u", "/proc/1"]).await.unwrap(),
        "999"
    );
    assert_eq!(postgres.inspect("{{.Config.StopSignal}}").await, "SIGINT");

    query(right, "INSERT INTO seen VALUES ('kept')").await.unwrap();
    postgres.docker(&["stop", "--time", "20"]).await.unwrap();
    assert_eq!(
        postgres.inspect("{{.State.ExitCode}}").await,
        "0",
        "SIGINT ends it in good order"
    );
    postgres.docker(&["start"]).await.unwrap();
    await_condition("PostgreSQL to answer again", START_DEADLINE, ready)
        .await
        .unwrap();
    assert_eq!(
        query(right, "SELECT count(*) FROM seen").await.unwrap(),
        "5",
        "init scripts run once"
    );
}

#[tokio::test]
async fn postgres_runs_as_uid_999_with_a_read_only_root_and_no_capabilities() {
    let data = format!("PGDATA={PGDATA}");
    let postgres = Container::run(
        "postgres",
        &[
            "--user",
            "999:999",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--tmpfs",
            "/var/run/postgresql",
            "--tmpfs",
            "/tmp",
            "--env",
            &data,
            "--env",
            "POSTGRES_PASSWORD=secret",
        ],
        &["-c", "max_connections=17"],
    )
    .await;
    let url = "postgresql://postgres:secret@127.0.0.1/postgres";
    let shown = await_condition("PostgreSQL to answer", START_DEADLINE, async || {
        postgres
            .exec(&["psql", url, "-At", "-c", "SHOW max_connections"])
            .await
    });
    assert_eq!(shown.await.unwrap(), "17", "arguments reach the server");
}

/// As the operator runs it: its script starts it, its init scripts make the service's role, nothing runs as root.
#[tokio::test]
async fn a_first_start_of_postgres_that_was_cut_short_begins_anew() {
    let files = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/src/controller/build/postgres");
    let script = |name: &str| std::fs::read_to_string(scripts.join(name)).unwrap();
    write(files.path(), "scripts/start.sh", &script("start.sh"), 0o644);
    for name in ["10-role.sql", "20-finished.sh"] {
        write(files.path(), &format!("init/{name}"), &script(name), 0o644);
    }
    write(files.path(), "passwords/password", "of-the-service", 0o644);
    write(
        files.path(),
        "passwords/superuser-password",
        "of-the-superuser",
        0o644,
    );
    let data = files.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();

    let start = async || {
        let mount = |name: &str, to: &str| format!("--volume={}:{to}", files.path().join(name).display());
        Container::run(
            "postgres",
            &[
                "--user=999:999",
                "--read-only",
                "--cap-drop=ALL",
                "--security-opt=no-new-privileges",
                "--tmpfs=/var/run/postgresql",
                "--tmpfs=/tmp",
                &mount("data", "/var/lib/postgresql/data"),
                &mount("scripts", "/etc/servicechain:ro"),
                &mount("init", "/docker-entrypoint-initdb.d:ro"),
                &mount("passwords", "/run/servicechain/passwords:ro"),
                &format!("--env=PGDATA={PGDATA}"),
                "--env=POSTGRES_PASSWORD_FILE=/run/servicechain/passwords/superuser-password",
                "--env=POSTGRES_INITDB_ARGS=--encoding=UTF8 --locale=C.UTF-8 --data-checksums",
                "--entrypoint=sh",
            ],
            &["/etc/servicechain/start.sh", "-c", "max_connections=50"],
        )
        .await
    };
    // Held before the role is made, then killed.
    write(
        files.path(),
        "init/05-hold.sh",
        "touch /tmp/held; sleep 60\n",
        0o644,
    );
    let cut_short = start().await;
    let held = async || cut_short.exec(&["test", "-e", "/tmp/held"]).await;
    await_condition("the first start to be under way", START_DEADLINE, held)
        .await
        .unwrap();
    cut_short.docker(&["kill"]).await.unwrap();
    drop(cut_short);
    assert!(
        data.join("pgdata/PG_VERSION").exists(),
        "the image would take it for a whole database"
    );

    std::fs::remove_file(files.path().join("init/05-hold.sh")).unwrap();
    let postgres = start().await;
    let url = "postgresql://app:of-the-service@127.0.0.1:5432/app";
    let is_superuser = async || {
        let sql = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
        postgres.exec(&["psql", url, "-At", "-c", sql]).await
    };
    let answer = await_condition("the service to log in", START_DEADLINE, is_superuser).await;
    assert_eq!(answer.unwrap(), "f");
    let log = postgres.docker(&["logs"]).await.unwrap();
    assert!(
        log.contains("the first start was cut short; it begins anew"),
        "{log}"
    );
    assert!(!log.contains("of-the-service"), "the password is in the log");

    postgres
        .exec(&["psql", url, "-c", "CREATE TABLE kept ()"])
        .await
        .unwrap();
    postgres.docker(&["kill"]).await.unwrap();
    postgres.docker(&["start"]).await.unwrap();
    let tables = async || {
        postgres
            .exec(&["psql", url, "-At", "-c", "SELECT count(*) FROM kept"])
            .await
    };
    let kept = await_condition("PostgreSQL to recover", START_DEADLINE, tables).await;
    assert_eq!(kept.unwrap(), "0", "a database that was whole once is kept");
}

#[tokio::test]
async fn postgres_without_a_password_says_what_to_set() {
    let postgres = Container::run("postgres", &[], &[]).await;
    let code = postgres.docker(&["wait"]).await.unwrap();
    assert_eq!(code, "1");
    let log = postgres.docker(&["logs"]).await.unwrap();
    assert!(
        log.contains("set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"),
        "{log}"
    );
}

#[tokio::test]
async fn redis_takes_flags_or_a_file_and_runs_as_uid_999() {
    let files = tempfile::tempdir().unwrap();
    write(
        files.path(),
        "redis.conf",
        "requirepass sesame\nmaxmemory 9mb\nsave \"\"\n",
        0o644,
    );
    let file = format!("{}:/etc/redis.conf:ro", files.path().join("redis.conf").display());
    let cases: [(&[&str], &[&str], &str); 3] = [
        (&[], &["--maxmemory", "7mb"], "7340032"),
        (&[], &["redis-server", "--maxmemory", "8mb"], "8388608"),
        (
            &["--volume", &file, "--read-only", "--user", "999:999"],
            &["/etc/redis.conf"],
            "9437184",
        ),
    ];
    for (options, arguments, expected) in cases {
        let redis = Container::run("redis", options, arguments).await;
        // Through its own address: protected mode would refuse that.
        let address = redis.inspect("{{.NetworkSettings.IPAddress}}").await;
        let client = [
            "redis-cli",
            "-h",
            &address,
            "-p",
            "6379",
            "-a",
            "sesame",
            "--no-auth-warning",
        ];
        let client = if expected == "9437184" {
            &client[..]
        } else {
            &client[..5]
        };
        let ask = async || {
            let answer = redis
                .exec(&[client, &["config", "get", "maxmemory"]].concat())
                .await?;
            if answer.contains("maxmemory") {
                Ok(answer)
            } else {
                Err(answer)
            }
        };
        let answer = await_condition("Redis to answer", START_DEADLINE, ask)
            .await
            .unwrap();
        assert!(answer.contains(expected), "{answer}");
        assert_eq!(redis.exec(&["stat", "-c", "%u", "/proc/1"]).await.unwrap(), "999");
        assert_eq!(
            redis.exec(&["stat", "-c", "%u %n", "/data"]).await.unwrap(),
            "999 /data"
        );
        assert_eq!(redis.exec(&["pwd"]).await.unwrap(), "/data");
    }
}

/// Removed with its volumes when dropped.
struct Container {
    cluster: Cluster,
    id: String,
}

impl Container {
    async fn run(image: &str, options: &[&str], arguments: &[&str]) -> Self {
        let cluster = Cluster::from_environment().unwrap();
        let image = cluster.image(image).unwrap();
        let run = [&["run", "--detach"], options, &[image], arguments].concat();
        let id = cluster.docker(run).await.unwrap();
        Self { cluster, id }
    }

    /// `docker COMMAND ID`.
    async fn docker(&self, command: &[&str]) -> Result<String, String> {
        let command = command.iter().copied().chain([self.id.as_str()]);
        self.cluster
            .docker(command)
            .await
            .map_err(|error| error.to_string())
    }

    async fn exec(&self, command: &[&str]) -> Result<String, String> {
        let command = ["exec", &self.id].into_iter().chain(command.iter().copied());
        self.cluster
            .docker(command)
            .await
            .map_err(|error| error.to_string())
    }

    async fn inspect(&self, format: &str) -> String {
        self.docker(&["inspect", "--format", format]).await.unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.cluster.remove_container(&self.id);
    }
}

fn write(folder: &Path, name: &str, contents: &str, mode: u32) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, contents).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}
