-- Gives leases back.
--
-- ARGV: COUNT of leases, then LEASE each
-- Returns: 1

for _ = 1, num() do
  local lease = take()
  redis.call('ZREM', open, lease)
  forget(lease)
end
save()
return 1
