-- Owns: the role and the database of the service. The role owns its database and nothing else.
-- A statement that fails must not bring the password into the log.
SET log_min_error_statement = 'panic';
SET log_statement = 'none';
\set password `cat /run/servicechain/passwords/password`
CREATE ROLE app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE app OWNER app;
REVOKE ALL ON DATABASE app FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
