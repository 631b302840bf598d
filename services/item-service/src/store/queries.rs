//! The two operations, written once for both databases: their SQL is the same, their types in sqlx are not.

/// Gives a store with a `pool` its `get` and `put`. `$begin` starts a transaction that may write.
macro_rules! item_queries {
    ($store:ty, $begin:expr) => {
        impl $store {
            pub(super) async fn get(&self, key: &ItemKey) -> Result<Stored, StoreError> {
                bounded(async {
                    let row: Option<(i64, Option<String>)> = sqlx::query_as(READ)
                        .bind(key.owner.digest().as_slice())
                        .bind(key.id.as_str())
                        .fetch_optional(&self.pool)
                        .await
                        .map_err(failed)?;
                    row.map_or(Ok(Stored::MISSING), row_to_stored)
                })
                .await
            }

            pub(super) async fn put(
                &self,
                key: &ItemKey,
                item: &Item,
                condition: &Condition,
                now: SystemTime,
                pauses: &PausePoints,
            ) -> Result<Written, StoreError> {
                let (transaction, written) = bounded(async {
                    let mut transaction = self.pool.begin_with($begin).await.map_err(failed)?;
                    let (version, exists): (i64, bool) = sqlx::query_as(LOCK)
                        .bind(key.owner.digest().as_slice())
                        .bind(key.id.as_str())
                        .bind(readable(key.owner.issuer()))
                        .bind(readable(key.owner.subject()))
                        .fetch_one(&mut *transaction)
                        .await
                        .map_err(failed)?;
                    let current = RowState {
                        version: row_to_version(version)?,
                        exists,
                    };
                    if !condition(current) {
                        return Err(StoreError::ConditionFailed(current));
                    }
                    let version = current.version.next(now);
                    sqlx::query(WRITE)
                        .bind(key.owner.digest().as_slice())
                        .bind(key.id.as_str())
                        .bind(version_to_row(version))
                        .bind(item.as_json())
                        .execute(&mut *transaction)
                        .await
                        .map_err(failed)?;
                    Ok((
                        transaction,
                        Written {
                            version,
                            created: !current.exists,
                        },
                    ))
                })
                .await?;
                pauses.at(Moment::BeforeCommit).await;
                bounded_commit(transaction.commit()).await?;
                Ok(written)
            }
        }
    };
}

pub(super) use item_queries;
