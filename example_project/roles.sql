-- The database of the shop and its three roles, for psql as administrator; it may run again, with new passwords.
--   shop          serves the site: owns what its migrations make, and reads no other database
--   shop_backup   backs up: reads everything, writes nothing
--   shop_restore  restores and rehearses: creates databases, and acts for shop
-- The passwords are read from files in the folder that the variable SECRETS of the environment names.
\set site_password `cat "$SECRETS/database_password"`
\set backup_password `cat "$SECRETS/database_backup_password"`
\set restore_password `cat "$SECRETS/database_restore_password"`

SELECT format('CREATE ROLE %I LOGIN', name)
    FROM (VALUES ('shop'), ('shop_backup'), ('shop_restore')) AS wanted (name)
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE shop PASSWORD :'site_password';
ALTER ROLE shop_backup BYPASSRLS PASSWORD :'backup_password';
ALTER ROLE shop_restore CREATEDB PASSWORD :'restore_password';
GRANT pg_read_all_data TO shop_backup;
GRANT shop TO shop_restore;

SELECT 'CREATE DATABASE shop OWNER shop'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'shop') \gexec
REVOKE ALL ON DATABASE shop, postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE shop TO shop_backup, shop_restore;
-- Where backups and restores of several hosts wait for each other, and databases are renamed from.
GRANT CONNECT ON DATABASE postgres TO shop_backup, shop_restore;
GRANT CONNECT ON DATABASE template1 TO shop_restore;
