-- Put after lib.lua. Which job a node would take. A class is `ENGINE|MODEL,MODEL`, either part may be empty. A node whose models are cold for a class takes it a few
-- turns later than its own turn: the penalty is finite in virtual time between tenants and in times passed over within one, so nothing starves.

-- What the step before wanted, and what was found of classes for it: most steps that go together want the same.
local WANT
local function want_of(engines, warm, penalty)
  if not WANT or WANT.engines ~= engines or WANT.warm ~= warm or WANT.penalty ~= penalty then
    WANT = {engines = engines, warm = warm, penalty = penalty, runs = {}, is_warm = {}}
  end
  return WANT
end

-- Whether it runs a class at all, and whether its models are warm.
local function look(want, class)
  local runs = want.runs[class]
  if runs ~= nil then return runs, want.is_warm[class] end
  local bar = string.find(class, '|', 1, true)
  local engine, is_warm = bar and string.sub(class, 1, bar - 1) or '', true
  runs = engine == '' or want.engines == '*' or string.find('\n' .. want.engines .. '\n', '\n' .. engine .. '\n', 1, true) ~= nil
  if want.penalty > 0 and bar then
    for model in string.gmatch(string.sub(class, bar + 1), '[^,]+') do
      if not string.find('\n' .. want.warm .. '\n', '\n' .. model .. '\n', 1, true) then is_warm = false end
    end
  end
  want.runs[class], want.is_warm[class] = runs, is_warm
  return runs, is_warm
end

-- What it would take of a tenant: place, score, whether cold, class, class passed over.
local function first_of(want, tenant)
  local place, score, cold, class
  local warm_place, warm_score, warm_class
  for each in pairs(classes_of(tenant)) do
    local runs, is_warm = look(want, each)
    if runs then
      local head, rank = head_of(tenant, each)
      if not place or rank < score or (rank == score and head < place) then place, score, cold, class = head, rank, not is_warm, each end
      if is_warm and (not warm_place or rank < warm_score or (rank == warm_score and head < warm_place)) then
        warm_place, warm_score, warm_class = head, rank, each
      end
    end
  end
  if not cold or not warm_place then return place, score, cold, class end
  if tonumber(call('HGET', P .. 'passed', tenant .. ':' .. class) or '0') >= want.penalty then return place, score, cold, class end
  return warm_place, warm_score, false, warm_class, class
end

-- The job that it takes, as above, then at which turn (`flow`), of which tenant, and that one's virtual start. `above`: only one that comes before this rank:
-- flow, score, tenant, cold ('1' or '').
local function next_job(want, above)
  local place, score, cold, class, passed, flow, tenant, start
  local bound = above and tonumber(above[1])
  for i = 1, math.huge do
    local following = flow_at(i)
    if not following or (place and following[2] >= flow) then break end
    local other, its = following[1], following[2]
    if above and not (its < bound or (its == bound and other < above[3])) then break end
    if not (above and other == above[3]) and may_run(other) then
      local its_place, its_score, its_cold, its_class, its_passed = first_of(want, other)
      if its_place then
        if its_cold then its = its + want.penalty end
        if (not place or its < flow) and (not above or its < bound or (its == bound and other < above[3])) then
          place, score, cold, class, passed = its_place, its_score, its_cold, its_class, its_passed
          flow, tenant, start = its, other, following[2]
        end
      end
    end
  end
  if place or not above then return place, score, cold, class, passed, flow, tenant, start end
  -- The job with that rank goes back for the one that comes before it: no more of its tenant's are held than now. A warm one does not for a cold one.
  local own = flow_of(above[3])
  if not own[2] then return end
  place, score, cold, class, passed = first_of(want, above[3])
  if place and (not cold or above[4] == '1') and score < tonumber(above[2]) then return place, score, cold, class, passed, own[1], above[3], own[1] end
end

-- What `held` has of the tokens of all steps.
local TOKENS
local function held_by(token)
  if not TOKENS then
    TOKENS = {}
    local names = {}
    for i, first in ipairs(STEPS) do names[i] = PACKED[first + 1] end
    for i, held in ipairs(call('HMGET', P .. 'held', unpack(names))) do TOKENS[names[i]] = held end
  end
  return TOKENS[token]
end
