-- Purpose:    the tenant that this session works for. Policies of all tables, and every look-up of a collection by
--             name, compare with it.
-- Arguments:  none
-- Returns:    the setting pgseek.tenant, '' where it is not set. For a login role that tenant_roles binds to a tenant:
--             that one, whatever the role sets.
-- Errors:     42501 the role is bound to a tenant, and has set another
-- Volatility: stable. Index: tenant_roles_pkey. SECURITY DEFINER: nobody but the owner reads tenant_roles.
CREATE OR REPLACE FUNCTION pgseek.tenant()
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    given CONSTANT text := coalesce(current_setting('pgseek.tenant', true), '');
    bound text;
BEGIN
    -- Of the session: what a function runs as, or SET ROLE chose, says nothing of who is there.
    SELECT r.tenant INTO bound FROM pgseek.tenant_roles r WHERE r.role = session_user::text;
    IF bound <> given AND given <> '' THEN
        RAISE EXCEPTION 'role % works for tenant %, but pgseek.tenant is %',
            session_user, quote_literal(bound), quote_literal(given)
            USING ERRCODE = '42501', HINT = 'leave the setting away, or log in with a role of that tenant';
    END IF;
    RETURN coalesce(bound, given);
END
$function$;
