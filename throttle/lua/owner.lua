-- Gives back every lease of one owner, and its dials.
--
-- ARGV: OWNER
-- Returns: how many had not lapsed

local owner, n = take(), 0
for _, lease in ipairs(leases()) do
  if string.match(lease, '^[^:]*:([^:]*):') == owner then
    n = n + redis.call('ZREM', open, lease)
    forget(lease)
  end
end
save()
return n
